"""Machines through libvirt: nothing persistent, nothing polled on the measured path."""
