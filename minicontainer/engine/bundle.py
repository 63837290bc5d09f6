"""An image and docker's options become an OCI runtime configuration, by docker's rules.

What the command line says wins over what the image says
(https://github.com/opencontainers/image-spec/blob/v1.1.0/conversion.md); the rest is what docker
gives to everyone: its 14 capabilities, its seccomp filter, an /etc/hosts of the container's own.
"""

from __future__ import annotations

import os
import stat

from ..images import overlay, rootless, users
from ..images.errors import ImageError
from ..kernel import capabilities, mountfd, mounts, seccomp_default
from ..options import UsageError
from ..runtime import home, jsonfile, spec
from ..runtime.config import RLIMITS
from ..runtime.errors import kernel_words
from ..runtime.steps import Step

PERIOD = 100_000  # µs, the kernel's and docker's default
UNLIMITED = 2**64 - 1  # RLIM_INFINITY
SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
LIMIT = 1 << 20  # bytes of a text file that is read


class Furnish(Step):
    """What the image's root gets before anything is mounted in it."""

    name = "volumes and working directory"
    why = "a volume begins with what the image has there; a missing working directory is made"
    clause = "image-spec config.md#properties"
    lesson = "08"

    def __init__(self, volumes: dict[str, str], cwd: str) -> None:
        self.volumes, self.cwd = volumes, cwd

    def calls(self):
        copies = [f"copy({target!r}, {path!r})" for target, path in self.volumes.items()]
        return [*copies, f"mkdir({self.cwd!r}, 0o755)"]

    def apply(self, context):
        for target, path in self.volumes.items():
            mountfd.copy_up(context.root_fd, target, path)
        os.close(mounts.make_in_root(context.root_fd, self.cwd, directory=True))


def configuration(told: dict, layers: list[str], directory: str, options: dict, words: list[str]):
    """(the configuration, its anonymous volumes: path inside -> directory).

    told       the image's `config` object
    layers     its unpacked layers
    directory  the container's own: `rootfs` in it becomes the root, other files of it are mounted
    options    the values of docker's options, as `cli.RUN_OPTIONS` has them
    words      the command; none takes the image's

    Raises UsageError for an option's value, ImageError for what the image has not.
    """
    name = os.path.basename(directory)
    hostname = options["hostname"] or name.replace("_", "-").replace("+", "-")[:63]
    network = options["network"] or "none"
    uid_maps, gid_maps = rootless.container_maps()
    accounts = _accounts(layers, directory)
    user = _user(accounts, options["user"] or told.get("User") or "", uid_maps, gid_maps)
    config = spec.configuration(
        f"{directory}/rootfs", command(told, options["entrypoint"], words),
        hostname=hostname, env=_environment(told, hostname, options),
        cwd=os.path.join("/", options["workdir"] or told.get("WorkingDir") or "/"), user=user,
        read_only=options["read_only"], network=network, rootless=bool(uid_maps),
        uid_maps=uid_maps, gid_maps=gid_maps,
    )  # fmt: skip
    process, linux = config["process"], config["linux"]
    process["env"] = home.add(process["env"], accounts, user["uid"])
    process["terminal"] = options["tty"]
    process.update(console_size())
    process["rlimits"] = [_ulimit(text) for text in options["ulimit"]]
    names = _capabilities(options["cap_add"], options["cap_drop"])
    process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), names)
    process["noNewPrivileges"], profile = _security(options["security_opt"], names)
    if profile:
        linux["seccomp"] = profile
    linux["devices"], rules = _devices(options["device"])
    linux["resources"] = _resources(options)
    if not uid_maps:  # in a user namespace there are no devices to make anyway
        linux["resources"]["devices"] = [{"allow": False, "access": "rwm"}, *rules]
    own, volumes = _mounts(told, options, directory)
    config["mounts"] += [*_own_files(layers, directory, hostname, network), *own]
    if linux["resources"]:
        config["mounts"].append({
            "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
            "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
        })  # fmt: skip
    return config, volumes


def console_size() -> dict:
    """Our terminal's size for a process object: so it is there before the program asks for it."""
    try:
        size = os.get_terminal_size(0)
    except OSError:
        return {}
    return {"consoleSize": {"height": size.lines, "width": size.columns}}


def command(told: dict, entrypoint: str | None, words: list[str]) -> list[str]:
    """Words replace Cmd and follow Entrypoint; --entrypoint replaces that, and takes Cmd away."""
    first = told.get("Entrypoint") or []
    rest = words or told.get("Cmd") or []
    if entrypoint is not None:
        first, rest = [entrypoint] if entrypoint else [], words
    if not [*first, *rest]:
        raise UsageError("which command? The image has none: minicontainer run IMAGE COMMAND")
    return [*first, *rest]


def variables(options: dict) -> list[str]:
    """NAME=VALUE, or NAME for the caller's, of --env-file, then of --env."""
    found = []
    for path in options["env_file"]:
        try:
            lines = jsonfile.read_file(path, LIMIT).splitlines()
        except (OSError, ValueError) as error:
            words = kernel_words(error.errno or 0) if isinstance(error, OSError) else str(error)
            raise UsageError(f"--env-file {path}: {words}") from None
        found += [line.lstrip() for line in lines if line.strip() and line.lstrip()[0] != "#"]
    return [*found, *options["env"]]


def changed(env: list[str], entries: list[str]) -> list[str]:
    """env after docker's rule: NAME=VALUE sets, NAME takes the caller's value, or unsets."""
    found = dict(entry.split("=", 1) for entry in env)
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not name:
            raise UsageError(f"environment: {entry!r} is no valid NAME=VALUE")
        if equals or name in os.environ:
            found[name] = value if equals else os.environ[name]
        else:
            found.pop(name, None)
    return [f"{name}={value}" for name, value in found.items()]


def _environment(told: dict, hostname: str, options: dict) -> dict[str, str]:
    env = {"PATH": spec.PATH, "HOSTNAME": hostname, **({"TERM": "xterm"} if options["tty"] else {})}
    first = [f"{name}={value}" for name, value in env.items()]
    given = [entry for entry in told.get("Env") or () if "=" in entry]
    return dict(entry.split("=", 1) for entry in changed(first + given, variables(options)))


def _accounts(layers: list[str], directory: str) -> str:
    """A directory with the image's passwd and group, so that these can be read without a mount."""
    made = f"{directory}/accounts"
    os.makedirs(f"{made}/etc", exist_ok=True)
    for name in ("/etc/passwd", "/etc/group"):
        found = overlay.find(layers, name, rootless.overlay_prefix())
        try:
            if found and stat.S_ISREG(os.lstat(found).st_mode):
                with open(found, "rb") as source, open(made + name, "wb") as copy:
                    copy.write(source.read(LIMIT))
        except OSError as error:
            raise ImageError(f"{name} of the image: {kernel_words(error.errno or 0)}") from None
    return made


def _user(accounts: str, text: str, uid_maps: list[dict], gid_maps: list[dict]) -> dict:
    uid, gid, groups = users.look_up(accounts, text)
    if uid_maps:  # rootless
        if not (_mapped(uid_maps, uid) and _mapped(gid_maps, gid)):
            raise ImageError(
                f"user {uid}:{gid} has no id outside the container",
                "ranges of ids for you in /etc/subuid and /etc/subgid, and apt install uidmap; or "
                "--user 0",
            )
        groups = [one for one in groups if _mapped(gid_maps, one)] if len(gid_maps) > 1 else []
    return {"uid": uid, "gid": gid, "additionalGids": groups}


def _mapped(maps: list[dict], number: int) -> bool:
    return any(0 <= number - one["containerID"] < one["size"] for one in maps)


# --- privileges --------------------------------------------------------------------------------


def _capabilities(added: list[str], dropped: list[str]) -> list[str]:
    known = capabilities.NAMES

    def named(option: str, words: list[str]) -> set[str]:
        names = {"CAP_" + word.upper().removeprefix("CAP_") for word in words}
        for name in names - {*known, "CAP_ALL"}:
            raise UsageError(f"{option} {name[4:]}: unknown; names are like NET_ADMIN, or ALL")
        return names

    add, drop = named("--cap-add", added), named("--cap-drop", dropped)
    kept = set(() if "CAP_ALL" in drop else capabilities.DOCKER_DEFAULT)
    kept |= {*known} if "CAP_ALL" in add else add
    return [name for name in known if name in kept and name not in drop]


def _security(words: list[str], names: list[str]) -> tuple[bool, dict | None]:
    """(no_new_privs, the filter)."""
    no_new_privileges = False
    profile: dict | None = seccomp_default.default_profile(names)
    for word in words:
        key, _, value = word.replace(":", "=", 1).partition("=")
        if key == "no-new-privileges" and value in ("", "true", "false"):
            no_new_privileges = value != "false"
        elif (key, value) == ("seccomp", "unconfined"):
            profile = None
        elif key == "seccomp" and value:
            profile = _profile(value) if value != "builtin" else profile
        elif (key, value) not in (("apparmor", "unconfined"), ("label", "disable")):
            raise UsageError(
                f"--security-opt {word}: seccomp=unconfined, seccomp=FILE and no-new-privileges "
                "are what there is"
            )
    return no_new_privileges, profile


def _profile(path: str) -> dict:
    try:
        profile = jsonfile.loads(jsonfile.read_file(path))
    except (OSError, ValueError) as error:
        words = kernel_words(error.errno or 0) if isinstance(error, OSError) else str(error)
        raise UsageError(f"--security-opt seccomp={path}: {words}") from None
    if not isinstance(profile, dict) or "archMap" in profile:
        raise UsageError(
            f"--security-opt seccomp={path}: the form of OCI's linux.seccomp is needed; docker's, "
            "with archMap and includes, has conditions that would be lost"
        )
    return profile


def _devices(words: list[str]) -> tuple[list[dict], list[dict]]:
    """(linux.devices, linux.resources.devices) of --device SOURCE[:TARGET][:rwm]."""
    devices, rules = [], []
    for word in words:
        parts = word.split(":")
        access = parts.pop() if len(parts) > 1 and not parts[-1].strip("rwm") else "rwm"
        source, target = parts[0], parts[-1]
        try:
            now = os.stat(source)
        except OSError as error:
            raise UsageError(f"--device {source}: {kernel_words(error.errno or 0)}") from None
        kind = "c" if stat.S_ISCHR(now.st_mode) else "b" if stat.S_ISBLK(now.st_mode) else ""
        if len(parts) > 2 or not kind or not target.startswith("/") or not access:
            raise UsageError(f"--device {word}: /dev/NAME[:PATH_INSIDE[:rwm]] of one device")
        if os.geteuid() and target != source:
            raise UsageError(f"--device {word}: without root a device keeps its path")
        number = {"type": kind, "major": os.major(now.st_rdev), "minor": os.minor(now.st_rdev)}
        owner = {"fileMode": stat.S_IMODE(now.st_mode), "uid": now.st_uid, "gid": now.st_gid}
        devices.append({"path": target, **number, **owner})
        rules.append({"allow": True, **number, "access": access})
    return devices, rules


# --- limits ------------------------------------------------------------------------------------


def _resources(options: dict) -> dict:
    found: dict = {}
    if options["memory"]:
        found["memory"] = {"limit": size("--memory", options["memory"])}
    if options["pids_limit"]:
        found["pids"] = {"limit": _number("--pids-limit", options["pids_limit"], -1)}
    if options["cpus"]:
        text = options["cpus"]
        whole, _, part = text.partition(".")
        if not (whole + part).isdecimal() or not float(text) * 100 >= 1:
            raise UsageError(f"--cpus {text}: a number of processors, 0.01 or more")
        found["cpu"] = {"quota": round(float(text) * PERIOD), "period": PERIOD}
    if options["cpuset_cpus"]:
        found.setdefault("cpu", {})["cpus"] = options["cpuset_cpus"]
    return found


def size(option: str, text: str) -> int:
    """Bytes, from docker's words such as 512m."""
    number = text.lower().rstrip("bkmgt")
    unit = text[len(number) :].lower()
    unit = unit if unit in SIZES else unit.removesuffix("b")
    if not number.isdecimal() or unit not in SIZES:
        raise UsageError(f"{option} {text}: bytes, or a number with k, m or g")
    return int(number) * SIZES[unit]


def _number(option: str, text: str, least: int) -> int:
    plain = text.removeprefix("-")
    if not plain.isdecimal() or int(text) < least:
        raise UsageError(f"{option} {text}: a whole number is needed")
    return int(text)


def _ulimit(text: str) -> dict:
    name, _, limits = text.partition("=")
    soft, _, hard = limits.partition(":")
    kind = f"RLIMIT_{name.upper()}"
    if kind not in RLIMITS:
        raise UsageError(f"--ulimit {text}: unknown; NAME=SOFT[:HARD], as in nofile=1024:2048")
    words = (soft, hard or soft)
    values = [UNLIMITED if word in ("-1", "unlimited") else _number("--ulimit", word, 0)
              for word in words]  # fmt: skip
    if values[0] > values[1]:
        raise UsageError(f"--ulimit {text}: the soft limit is above the hard one")
    return {"type": kind, "soft": values[0], "hard": values[1]}


# --- mounts ------------------------------------------------------------------------------------


def _mounts(told: dict, options: dict, directory: str) -> tuple[list[dict], dict[str, str]]:
    """(-v, --tmpfs and volumes as mounts, the outer ones first; anonymous volumes)."""
    found = {}
    for text in options["tmpfs"]:
        target, _, words = text.partition(":")
        target = _inside("--tmpfs", text, target)
        found[target] = {
            "destination": target, "type": "tmpfs", "source": "tmpfs",
            "options": ["noexec", "nosuid", "nodev", *filter(None, words.split(","))],
        }  # fmt: skip
    anonymous = []
    for text in options["volume"]:
        source, _, rest = text.partition(":")
        if not rest:
            anonymous.append(_inside("--volume", text, source))
            continue
        target, _, words = rest.partition(":")
        target = _inside("--volume", text, target)
        found[target] = _bind(_outside(text, source), target, _volume_words(text, words))
    anonymous += [_inside("volume of the image", path, path) for path in told.get("Volumes") or ()]
    volumes: dict[str, str] = {}
    for target in anonymous:
        if target not in found:
            volumes[target] = f"{directory}/volumes/{len(volumes)}"
            os.makedirs(volumes[target], exist_ok=True)
            found[target] = _bind(volumes[target], target, [])
    return sorted(found.values(), key=lambda one: one["destination"].count("/")), volumes


def _inside(option: str, text: str, path: str) -> str:
    target = os.path.normpath(path)
    if not path.startswith("/") or target == "/" or "\0" in path:
        raise UsageError(f"{option} {text}: {path!r} is no absolute path below / of the container")
    return target


def _outside(text: str, source: str) -> str:
    if "/" not in source and source not in (".", ".."):
        raise UsageError(
            f"--volume {text}: volumes with names are not supported: /a/path, or ./{source}"
        )
    path = os.path.abspath(source)
    if not os.path.exists(path):
        raise UsageError(f"--volume {text}: {path}: no such file or directory")
    return path


def _volume_words(text: str, words: str) -> list[str]:
    known = {"ro": ["ro", "rro"], "rw": [], "": [], "z": [], "Z": []}
    known |= {word: [word] for word in mounts.PROPAGATION_OPTIONS}
    unknown = [word for word in words.split(",") if word not in known]
    if unknown:
        raise UsageError(f"--volume {text}: unknown option {unknown[0]!r}; there is ro")
    return [one for word in words.split(",") for one in known[word]]


def _bind(source: str, target: str, words: list[str]) -> dict:
    return {"destination": target, "type": "bind", "source": source,
            "options": ["rbind", "rprivate", *words]}  # fmt: skip


def _own_files(layers: list[str], directory: str, hostname: str, network: str) -> list[dict]:
    """/etc/hostname, hosts and resolv.conf: the host's where its network is."""
    hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.1.1\t{hostname}\n"
    files = {"hostname": f"{hostname}\n", "hosts": hosts, "resolv.conf": ""}
    if network == "host":
        for name in ("hosts", "resolv.conf"):
            try:
                files[name] = jsonfile.read_file(f"/etc/{name}", LIMIT)
            except (OSError, ValueError):
                pass  # the host has none
    for name, text in files.items():
        jsonfile.write_file(f"{directory}/{name}", text, 0o644)
    prefix = rootless.overlay_prefix()
    return [
        _bind(f"{directory}/{name}", f"/etc/{name}", [])
        for name in files
        if overlay.find(layers, f"/etc/{name}", prefix)  # not where a link leads to nowhere
    ]
