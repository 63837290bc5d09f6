"""What the tests know about lesson 07."""

from __future__ import annotations

BUILDS = ("is_whiteout is_opaque lookup", "minicontainer/images/overlay.py")
IGNORED_CELLS = 1

_MOUNT = (
    "    syscalls.mount('overlay', f'{place}/merged', 'overlay', 0,\n"
    "                   f'userxattr,lowerdir={lower},upperdir={own}/upper,workdir={own}/work')\n"
)

WRONG = {
    "07.1": [
        (
            "def changes(upper, lower):\n"
            "    found = []\n"
            "    for path in Path(upper).rglob('*'):\n"
            "        name = str(path.relative_to(upper))\n"
            "        kind = 'C' if os.path.lexists(f'{lower}/{name}') else 'A'\n"
            "        found.append(f'{kind} {name}')\n"
            "    return sorted(found)\n",
            "etc/os was deleted",
        ),
        (
            "def changes(upper, lower):\n"
            "    found = []\n"
            "    for path in Path(upper).rglob('*'):\n"
            "        name = str(path.relative_to(upper))\n"
            "        kind = 'C' if os.path.exists(f'{lower}/{name}') else 'A'\n"
            "        if is_whiteout(path.lstat()):\n"
            "            kind = 'D'\n"
            "        found.append(f'{kind} {name}')\n"
            "    return sorted(found)\n",
            "os.path.lexists at the link",
        ),
        (
            "def changes(upper, lower):\n"
            "    found = []\n"
            "    for name in os.listdir(upper):\n"
            "        kind = 'C' if os.path.lexists(f'{lower}/{name}') else 'A'\n"
            "        found.append(f'{kind} {name}')\n"
            "    return sorted(found)\n",
            "Something deeper down is missing",
        ),
        (
            "def changes(upper, lower):\n"
            "    found = []\n"
            "    for path in Path(upper).rglob('*'):\n"
            "        name = str(path.relative_to(upper))\n"
            "        kind = 'C' if os.path.lexists(f'{lower}/{name}') else 'A'\n"
            "        if is_whiteout(path.lstat()):\n"
            "            kind = 'D'\n"
            "        if not path.is_dir():\n"
            "            found.append(f'{kind} {name}')\n"
            "    return sorted(found)\n",
            "Your list lacks 'A srv'",
        ),
    ],
    "07.2": [
        (
            "def container(layers, place):\n"
            "    for name in ('upper', 'work', 'merged'):\n"
            "        os.makedirs(f'{place}/{name}')\n"
            "    lower, own = ':'.join(layers), place\n" + _MOUNT,
            "In lowerdir the first one is the topmost",
        ),
        (
            "def container(layers, place):\n"
            "    own = '/srv/shared'\n"
            "    for path in (f'{own}/upper', f'{own}/work', f'{place}/merged'):\n"
            "        os.makedirs(path, exist_ok=True)\n"
            "    lower = ':'.join(reversed(layers))\n" + _MOUNT,
            "they share an upper",
        ),
        (
            "def container(layers, place):\n"
            "    os.makedirs(f'{place}/merged')\n"
            "    lower = ':'.join(reversed(layers))\n"
            "    syscalls.mount('overlay', f'{place}/merged', 'overlay', 0, f'lowerdir={lower}')\n",
            "It cannot be written",
        ),
        (
            "def container(layers, place):\n"
            "    lower, own = ':'.join(reversed(layers)), place\n" + _MOUNT,
            "container failed: ENOENT",
        ),
    ],
    "07.3": [
        (
            "def origin(layers, path):\n"
            "    for layer in reversed(layers):\n"
            "        if os.path.isfile(f'{layer}/{path}'):\n"
            "            return f'{layer}/{path}'\n"
            "    return ''\n",
            "the overlay shows none",
        ),
        (
            "def origin(layers, path):\n"
            "    for layer in reversed(layers):\n"
            "        if os.path.lexists(f'{layer}/{path}'):\n"
            "            found = f'{layer}/{path}'\n"
            "            return '' if is_whiteout(os.lstat(found)) else found\n"
            "    return ''\n",
            "there is a whiteout for the directory opt",
        ),
        (
            "def origin(layers, path):\n"
            "    directories = layers\n"
            "    for name in path.split('/'):\n"
            "        directories = lookup(directories, name, 'user.overlay.')\n"
            "    return directories[0] if directories else ''\n",
            "Begin with the topmost layer",
        ),
        (
            "def origin(layers, path):\n"
            "    return lookup(list(reversed(layers)), path, 'user.overlay.')\n",
            "a text is wanted",
        ),
    ],
}
