"""docker's job: containers with a name, from an image, that are there until they are removed.

bundle       an image and docker's options as an OCI configuration
logs         what a detached one printed
containers   a directory for each: what it is, what it changed, how it ended
attend       its life: in the foreground, or with a process of its own that stands by
"""
