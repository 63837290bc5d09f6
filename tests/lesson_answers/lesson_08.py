"""What the tests know about lesson 08."""

from __future__ import annotations

BUILDS = ("add_document write_image", "minicontainer/images/commit.py")
IGNORED_CELLS = 1

_LOAD = (
    "    def load(descriptor):\n"
    "        return Path(layout, 'blobs', descriptor['digest'].replace(':', '/'))\n"
)
_NAME = "entry['annotations']['org.opencontainers.image.ref.name']"
_MANIFESTS = "json.loads(Path(layout, 'index.json').read_text())['manifests']"

WRONG = {
    "08.1": [
        (
            "def damaged(layout):\n"
            "    found = []\n"
            "    for path in Path(layout, 'blobs/sha256').iterdir():\n"
            "        if hashlib.sha256(path.read_text().encode()).hexdigest() != path.name:\n"
            "            found.append(f'sha256:{path.name}')\n"
            "    return sorted(found)\n",
            "damaged failed: UnicodeDecodeError",
        ),
        (
            "def damaged(layout):\n"
            "    found = []\n"
            "    for path in Path(layout, 'blobs/sha256').iterdir():\n"
            "        if hashlib.sha256(path.read_bytes()).hexdigest() != path.name:\n"
            "            found.append(path.name)\n"
            "    return sorted(found)\n",
            "A digest begins with the name of its function",
        ),
        (
            "def damaged(layout):\n"
            "    found = []\n"
            "    for path in Path(layout, 'blobs/sha256').iterdir():\n"
            "        data = path.read_bytes()[:65536]\n"
            "        if hashlib.sha256(data).hexdigest() != path.name:\n"
            "            found.append(f'sha256:{path.name}')\n"
            "    return sorted(found)\n",
            "and that blob is as it was",
        ),
    ],
    "08.2": [
        (
            "def unearth(layout, name, path):\n" + _LOAD + f"    entry = {_MANIFESTS}[0]\n"
            "    for layer in reversed(json.loads(load(entry).read_text())['layers']):\n"
            "        with tarfile.open(load(layer)) as tar:\n"
            "            if path in tar.getnames():\n"
            "                return tar.extractfile(path).read().decode()\n"
            "    return ''\n",
            "This is another image's",
        ),
        (
            "def unearth(layout, name, path):\n" + _LOAD + f"    for entry in {_MANIFESTS}:\n"
            f"        if {_NAME} == name:\n"
            "            layers = json.loads(load(entry).read_text())['layers']\n"
            "    with tarfile.open(load(layers[-1])) as tar:\n"
            "        if path in tar.getnames():\n"
            "            return tar.extractfile(path).read().decode()\n"
            "    return ''\n",
            "the layers below are there as they were",
        ),
        (
            "def unearth(layout, name, path):\n" + _LOAD + f"    for entry in {_MANIFESTS}:\n"
            f"        if {_NAME} == name:\n"
            "            layers = json.loads(load(entry).read_text())['layers']\n"
            "    for layer in layers:\n"
            "        with tarfile.open(load(layer)) as tar:\n"
            "            if path in tar.getnames():\n"
            "                return tar.extractfile(path).read().decode()\n"
            "    return ''\n",
            "The manifest lists the lowest layer first",
        ),
        (
            "def unearth(layout, name, path):\n" + _LOAD + f"    for entry in {_MANIFESTS}:\n"
            f"        if {_NAME} == name:\n"
            "            layers = json.loads(load(entry).read_text())['layers']\n"
            "    for layer in reversed(layers):\n"
            "        with tarfile.open(load(layer)) as tar:\n"
            "            if path in tar.getnames():\n"
            "                return tar.extractfile(path).read()\n"
            "    return ''\n",
            "decode() makes text of bytes",
        ),
    ],
    "08.3": [
        (
            "def archive(directory):\n"
            "    buffer = io.BytesIO()\n"
            "    with tarfile.open(fileobj=buffer, mode='w') as tar:\n"
            "        for path in sorted(Path(directory).rglob('*')):\n"
            "            name = str(path.relative_to(directory))\n"
            "            tar.add(path, name, recursive=False)\n"
            "    return buffer.getvalue()\n",
            "It is the time of their last change",
        ),
        (
            "def archive(directory):\n"
            "    def plain(entry):\n"
            "        entry.mtime = 0\n"
            "        return entry\n"
            "    buffer = io.BytesIO()\n"
            "    with tarfile.open(fileobj=buffer, mode='w') as tar:\n"
            "        for path in Path(directory).rglob('*'):\n"
            "            name = str(path.relative_to(directory))\n"
            "            tar.add(path, name, recursive=False, filter=plain)\n"
            "    return buffer.getvalue()\n",
            "It is the order of the entries",
        ),
        (
            "def archive(directory):\n"
            "    buffer = io.BytesIO()\n"
            "    with tarfile.open(fileobj=buffer, mode='w') as tar:\n"
            "        tar.add(directory)\n"
            "    return buffer.getvalue()\n",
            "relative to the directory",
        ),
        (
            "def archive(directory):\n"
            "    buffer = io.BytesIO()\n"
            "    with tarfile.open(fileobj=buffer, mode='w') as tar:\n"
            "        for path in sorted(Path(directory).rglob('*')):\n"
            "            entry = tarfile.TarInfo(str(path.relative_to(directory)))\n"
            "            data = path.read_bytes() if path.is_file() else b''\n"
            "            entry.size = len(data)\n"
            "            tar.addfile(entry, io.BytesIO(data))\n"
            "    return buffer.getvalue()\n",
            "has the mode",
        ),
    ],
}
