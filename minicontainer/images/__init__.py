"""Images: root file systems with a name, made of layers, kept by the digest of their content.

The data flows one way: reference -> registry or archive -> `store` -> `unpack` -> `overlay` -> a
root file system; and back: the container's upper directory -> `diff` -> `commit` -> `store`.
"""
