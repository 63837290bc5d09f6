"""Builds, real ones: beside podman's of the same Containerfile, cached, broken off, hostile."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest

from minicontainer.images import overlay
from minicontainer.images.archive import save
from minicontainer.images.build import build
from minicontainer.images.errors import ImageError
from minicontainer.images.store import Store
from tests.image_layers import listing
from tests.roots import COMMAND, ORDINARY_UID, make_busybox_root
from tests.waiting import until

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: sudo ./workshop test")
BUILD = [*COMMAND, "build"]


@pytest.fixture
def context(tmp_path: Path) -> Path:
    """A build context with a busybox root and odd files."""
    context = tmp_path / "context"
    context.mkdir()
    root = make_busybox_root(context / "rootfs")
    for name in ("dev", "proc", "sys", "run", "etc", "tmp", "home/app"):
        (root / name).mkdir(parents=True)
    (root / "tmp").chmod(0o1777)
    # podman leaves the files that it mounts these on, with a mode of its own
    for name in ("hosts", "hostname", "resolv.conf"):
        (root / "etc" / name).touch()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:10:20::/home/app:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\napps:x:20:\nmore:x:30:app\n")
    (context / "one.txt").write_text("one\n")
    (context / "two.txt").write_text("two\n")
    tree = context / "tree"
    (tree / "sub/deep").mkdir(parents=True)
    (tree / "sub/deep/file").write_text("deep")
    (tree / "secret").write_text("of nobody else")
    (tree / "secret").chmod(0o600)
    (tree / "sub").chmod(0o750)
    (tree / "link").symlink_to("sub/deep/file")
    (tree / "nowhere").symlink_to("/not/there")
    os.link(tree / "sub/deep/file", tree / "hard")
    (tree / "empty").mkdir()
    os.setxattr(tree / "secret", "user.note", b"kept")
    with tarfile.open(context / "some.tar.gz", "w:gz") as archive:
        for path, owner in ((tree / "sub", 5), (tree / "sub/deep", 6), (context / "one.txt", 7)):
            info = archive.gettarinfo(path, path.name)
            info.uid = info.gid = owner
            with open(path, "rb") if path.is_file() else open(os.devnull, "rb") as content:
                archive.addfile(info, content)
    return context


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def write(context: Path, text: str, name: str = "Containerfile") -> None:
    (context / name).write_text(text)


def steps(store: Store, context: Path, *, layers: bool = True, **words) -> tuple[dict, list[str]]:
    """Build; returns the descriptor and what was told of each step."""
    told: list[str] = []
    made = build(store, str(context), progress=told.append, network="none", **words)
    assert not [name for name in os.listdir(f"{store.root}/layers") if name.startswith("new-")]
    assert store.root not in Path("/proc/self/mountinfo").read_text()
    return made, told


def cached(told: list[str]) -> list[bool]:
    """Of each instruction that makes layers, whether it was in the cache."""
    makers = ("COPY", "ADD", "RUN", "WORKDIR")
    return [
        line.endswith("(cached)") for line in told if line.partition("] ")[2].startswith(makers)
    ]


def tree(store: Store, pointer: dict, place: Path) -> tuple[dict, dict]:
    """The files, unpacked by umoci, and the config of an image."""
    store.tag("localhost/seen:latest", pointer)
    with open(f"{place}.tar", "wb") as file:
        file.writelines(save(store, ["localhost/seen:latest"]))
    store.untag("localhost/seen:latest")
    return unpacked(Path(f"{place}.tar"), place)


def unpacked(archive: Path, place: Path) -> tuple[dict, dict]:
    for words in (
        ["skopeo", "copy", f"oci-archive:{archive}", f"oci:{place}-layout:seen"],
        ["umoci", "unpack", "--image", f"{place}-layout:seen", str(place)],
    ):
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    shown = subprocess.run(
        ["skopeo", "inspect", "--config", f"oci:{place}-layout:seen"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return listing(place / "rootfs", times=False), json.loads(shown.stdout)["config"]


def podman_build(context: Path, archive: Path, *words: str) -> None:
    """The same by podman, as an archive; skips where that does not work."""
    place = tempfile.mkdtemp()  # its --runroot has to be short
    command = [
        "podman", "--runtime", "runc", "--cgroup-manager=cgroupfs", "--storage-driver=vfs",
        "--events-backend=file", "--root", f"{place}/root", "--runroot", f"{place}/run",
        "--tmpdir", f"{place}/tmp",
    ]  # fmt: skip
    try:
        probe = subprocess.run([*command, "info"], capture_output=True, text=True, timeout=60)
        if probe.returncode:
            pytest.skip(f"podman does not work here: {probe.stderr}")
        for more in (
            ["build", "--network", "none", "--ulimit", "nofile=1024:1024", "--ulimit",
             "nproc=1024:1024", "-t", "seen", *words, str(context)],
            ["save", "--format", "oci-archive", "-o", str(archive), "seen"],
        ):  # fmt: skip
            done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stdout + done.stderr
    finally:
        shutil.rmtree(place)


CONTAINERFILE = r"""# A comment, and no directive
ARG WHERE=/srv
FROM scratch AS base
COPY rootfs /
ENV GREETING="hello world" NAME=x PATH=$PATH:/more
# WHERE is of the first lines: a stage asks for it
ARG WHERE
ARG LATER=late
WORKDIR /work
WORKDIR sub
COPY one.txt two.txt ./
COPY tree ${WHERE}/tree
COPY tree/. existing/
COPY one.txt /new/name
COPY one.txt /new/directory/
COPY --chown=10:20 --chmod=640 two.txt /owned
COPY --chown=app tree /owned-tree
COPY t?o.txt [o]*.txt /globs/
COPY tree/link /followed
ADD some.tar.gz /added
ADD --chown=7:8 one.txt /added/
RUN echo "$GREETING" $LATER > /said && id > /id && pwd > /pwd && \
    # in the middle

    mkdir -p /made/by && ln -s by /made/link && chmod 1770 /made
RUN ["/bin/sh", "-c", "umask > /umask"]
RUN rm -r /srv/tree/sub && mkdir /srv/tree/sub && touch /srv/tree/sub/new && rm /work/sub/one.txt
RUN mkfifo /fifo && chown 3:4 /fifo
RUN mkdir -p /copied/owned
USER app:more
RUN id > /tmp/app; echo $HOME > /tmp/home
USER 10
RUN id > /tmp/ten

FROM base AS unused
RUN exit 1

FROM base
COPY --from=base /said /srv /copied/
COPY --from=0 /owned-tree /copied/owned
COPY --from=base --chown=1:1 /made/link /copied/link
LABEL one=1 "two"="2 2" three="a\
b"
EXPOSE 80 443/tcp 53/udp
VOLUME ["/data", "/more data"]
VOLUME /third /fourth
STOPSIGNAL SIGINT
ENTRYPOINT ["/bin/sh", "-c"]
CMD echo $NAME
ENV OLD value with   blanks
"""


@root_only
@pytest.mark.slow
def test_the_same_as_podman(context, store, tmp_path, monkeypatch) -> None:
    for tool in ("podman", "skopeo", "umoci", "runc"):
        if not shutil.which(tool):
            pytest.skip(f"{tool} is not installed")
    write(context, CONTAINERFILE)
    arguments = {"LATER": "later"}
    made, told = steps(store, context, args=arguments)
    assert not [line for line in told if "unused" in line]  # the stage that would fail
    assert not [line for line in told if "layers are copied" in line]
    ours, config = tree(store, made, tmp_path / "ours")

    def refuse(*_, **__):
        raise OSError(19, "no overlayfs")

    with monkeypatch.context() as without:
        without.setattr(overlay, "mount", refuse)
        other = Store(str(tmp_path / "other"))
        made, told = steps(other, context, args=arguments)
        assert len([line for line in told if "layers are copied" in line]) == 1
    assert tree(other, made, tmp_path / "copied") == (ours, config)

    podman_build(context, tmp_path / "theirs.tar", "--build-arg", "LATER=later")
    theirs, their_config = unpacked(tmp_path / "theirs.tar", tmp_path / "theirs")
    for name in (b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"):
        assert ours.pop(name)
        theirs.pop(name)
    assert ours.keys() == theirs.keys()
    different = [(key, ours[key], theirs[key]) for key in ours if ours[key] != theirs[key]]
    assert not different, "\n".join(map(str, different))
    for key in ("Env", "Cmd", "Entrypoint", "WorkingDir", "User", "ExposedPorts", "Volumes",
                "StopSignal"):  # fmt: skip
        assert config[key] == their_config[key], key
    labels = {k: v for k, v in their_config["Labels"].items() if k != "io.buildah.version"}
    assert config["Labels"] == labels


# --- what instructions do, beyond that ---------------------------------------------------------


def files(store: Store, pointer: dict, tmp_path: Path) -> Path:
    """The image's files; owners are those of the layers as they were unpacked."""
    from minicontainer.images import layers, merge, rootless

    place = tmp_path / f"files-{len(os.listdir(tmp_path))}"
    place.mkdir()
    image = store.open("built", pointer)
    with store.lease():
        merge.copy(layers.unpacked(store, image), rootless.overlay_prefix(), str(place))
    return place


def test_files_keep_what_they_have(context, store, tmp_path) -> None:
    """As docker has it; podman 4 takes setuid away, and forgets hard links of a RUN."""
    (context / "program").write_text("x")
    (context / "program").chmod(0o6755)
    os.setxattr(context / "program", "user.note", b"kept")
    if os.geteuid() == 0:
        words = ["setcap", "cap_net_raw+ep", str(context / "two.txt")]
        if not shutil.which("setcap") or subprocess.run(words).returncode:
            pytest.skip("setcap does not work here")
    old = 1_500_000_000
    os.utime(context / "program", (old, old))
    write(context, "FROM scratch\nCOPY rootfs /\nCOPY program two.txt /\nRUN ln /program /linked\n"
                   "FROM scratch\nCOPY --from=0 /program /linked /two.txt /\n")  # fmt: skip
    made, _ = steps(store, context)
    root = files(store, made, tmp_path)
    now = (root / "program").stat()
    assert now.st_mode & 0o7777 == 0o6755
    assert (now.st_ino, now.st_mtime) == ((root / "linked").stat().st_ino, old)
    assert os.getxattr(root / "program", "user.note") == b"kept"
    if os.geteuid() == 0:
        assert os.getxattr(root / "two.txt", "security.capability")


def test_here_documents(context, store, tmp_path) -> None:
    write(context, """FROM scratch
COPY rootfs /
ENV A=expanded
RUN <<EOF
mkdir /d
for n in 1 2; do echo "$A $n"; done > /d/run
EOF
RUN cat > /d/one <<-ONE && cat > /d/two <<'TWO'
\t$A
\tONE
$A
TWO
RUN <<EOF
#!/bin/awk -f
BEGIN { print "by awk" > "/d/awk" }
EOF
COPY <<EOF <<"RAW" one.txt /d/
$A \\$A it's
EOF
$A
RAW
""")  # fmt: skip
    made, _ = steps(store, context)
    root = files(store, made, tmp_path) / "d"
    found = {path.name: path.read_text() for path in root.iterdir()}
    assert found == {
        "run": "expanded 1\nexpanded 2\n", "one": "expanded\n", "two": "$A\n", "awk": "by awk\n",
        "EOF": "expanded $A it's\n", "RAW": "$A\n", "one.txt": "one\n",
    }  # fmt: skip


def test_run_leaves_nothing_of_its_mounts(context, store, tmp_path) -> None:
    """An image without /proc, /dev, /sys and /etc stays so, but for what RUN puts in."""
    for name in ("dev", "proc", "sys", "run"):
        (context / "rootfs" / name).rmdir()
    shutil.rmtree(context / "rootfs/etc")
    write(context, "FROM scratch\nCOPY rootfs /\nRUN true\n"
                   "RUN test -s /etc/hosts && mount | grep -q /proc\n"
                   "RUN mkdir -p /etc && echo x > /etc/own\n")  # fmt: skip
    made, _ = steps(store, context)
    root = files(store, made, tmp_path)
    assert sorted(os.listdir(root)) == ["bin", "etc", "home", "tmp"]
    assert os.listdir(root / "etc") == ["own"]
    image = store.open("built", made)
    assert len(image.layers) == 2  # the two RUNs in between changed nothing
    history = image.config["history"]
    assert [one.get("empty_layer", False) for one in history] == [False, True, True, False]


def test_a_command_has_no_more_rights_than_a_container(context, store, tmp_path) -> None:
    write(context, "FROM scratch\nCOPY rootfs /\nRUN id -u > /id; ps > /ps; ip link > /links;"
                   " grep Cap /proc/self/status > /caps; grep Seccomp: /proc/self/status > /filter;"
                   " hostname > /name; ! touch /proc/sys/kernel/hostname\n")  # fmt: skip
    made, _ = steps(store, context)
    root = files(store, made, tmp_path)
    assert (root / "id").read_text() == "0\n"
    assert len((root / "ps").read_text().splitlines()) == 3
    assert "eth" not in (root / "links").read_text()
    assert "CapEff:\t00000000a80425fb" in (root / "caps").read_text()
    assert (root / "filter").read_text() == "Seccomp:\t2\n"


def test_the_network_of_the_host(context, store, tmp_path) -> None:
    """With it, RUN can fetch; without, there is a loopback alone."""
    command = "readlink /proc/self/ns/net > /net; cp /etc/resolv.conf /names"
    write(context, f"FROM scratch\nCOPY rootfs /\nRUN {command}\n")
    own = os.readlink("/proc/self/ns/net")
    for network in ("host", "none"):
        root = files(store, build(store, str(context), network=network), tmp_path)
        assert ((root / "net").read_text().strip() == own) == (network == "host")
        assert (root / "etc/resolv.conf").read_text() == ""  # the image's own
        if network == "host" and os.path.exists("/etc/resolv.conf"):
            assert (root / "names").read_text() == Path("/etc/resolv.conf").read_text()


def test_arguments(context, store, tmp_path) -> None:
    write(
        context,
        """ARG BASE=nothing TAG=${BASE}-x
ARG TARGETARCH
FROM ${BASE:+scratch} AS one
COPY rootfs /
ARG TAG
ARG GIVEN=default
ARG NONE
ARG TARGETOS
ENV TAG2=$TAG
RUN echo "$TAG2 $GIVEN ${NONE-unset} $TARGETOS ${TARGETARCH-unset}" > /args
FROM one
RUN echo "${TAG-unset} $TAG2" >> /args
""",
    )
    arguments = {"GIVEN": "g", "TYPO": "1"}
    made, told = steps(store, context, args=arguments)
    text = (files(store, made, tmp_path) / "args").read_text()
    assert text == "nothing-x g unset linux unset\nnothing-x nothing-x\n"
    assert "no ARG takes --build-arg TYPO" in told


def test_stages_that_are_needed(context, store, tmp_path) -> None:
    write(
        context,
        """FROM scratch AS a
COPY one.txt /a
FROM scratch AS b
COPY two.txt /b
FROM a AS c
COPY --from=b /b /c
FROM scratch AS last
COPY --from=nosuchimage /x /
""",
    )
    made, told = steps(store, context, target="c")
    assert sorted(os.listdir(files(store, made, tmp_path))) == ["a", "c"]
    assert not [line for line in told if line.startswith("[last")]
    made, told = steps(store, context, target="1")
    assert [line[:3] for line in told] == ["[b ", "[b "]
    with pytest.raises(ImageError, match=r"Containerfile:8: .*no such image: nosuchimage"):
        steps(store, context)
    with pytest.raises(ImageError, match="--target d: Containerfile has no such stage"):
        steps(store, context, target="d")


def test_ignored_files(context, store, tmp_path) -> None:
    (context / ".dockerignore").write_text("nothing\n")
    (context / ".containerignore").write_text(
        "# comment\nrootfs\n**/*.gz\nContainerfile*\ntree/**\n!tree/sub/deep\n!tree/l*\n.c*\n.d*\n"
        "*.txt\n!one.txt\n"
    )
    write(context, "FROM scratch\nCOPY . /all\n")
    made, _ = steps(store, context)
    root = files(store, made, tmp_path) / "all"
    found = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    assert found == ["one.txt", "tree", "tree/link", "tree/sub", "tree/sub/deep",
                     "tree/sub/deep/file"]  # fmt: skip
    (context / "Containerfile.dockerignore").write_text("*\n!two.txt\n")
    made, _ = steps(store, context)
    assert os.listdir(files(store, made, tmp_path) / "all") == ["two.txt"]
    for line, text in (("COPY one.txt /", "it is ignored"), ("COPY o* /", "all is ignored")):
        write(context, f"FROM scratch\n{line}\n")
        with pytest.raises(ImageError, match=rf"Containerfile:2: {line[:6]}.*{text}"):
            steps(store, context)


# --- the cache ---------------------------------------------------------------------------------


CACHED = """FROM scratch
COPY rootfs /
ARG A=1
COPY tree /tree
ENV E=1
RUN echo $A $E > /x
WORKDIR /w
"""


def test_what_changes_a_layer(context, store) -> None:
    write(context, CACHED)
    first, told = steps(store, context)
    assert cached(told) == [False] * 4
    again, told = steps(store, context)
    assert cached(told) == [True] * 4
    assert again == first
    for path in context.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)  # touch
    again, told = steps(store, context)
    assert (again, cached(told)) == (first, [True] * 4)

    (context / "tree/secret").chmod(0o644)
    assert cached(steps(store, context)[1]) == [True, False, False, False]
    (context / "tree/secret").chmod(0o600)
    assert cached(steps(store, context)[1]) == [True] * 4
    (context / "tree/sub/deep/file").write_text("deeper")
    assert cached(steps(store, context)[1]) == [True, False, False, False]
    (context / "tree/more").touch()
    assert cached(steps(store, context)[1]) == [True, False, False, False]
    (context / "tree/link").unlink()
    (context / "tree/link").symlink_to("secret")
    assert cached(steps(store, context)[1]) == [True, False, False, False]
    assert cached(steps(store, context, args={"A": "2"})[1]) == [True, True, False, False]
    write(context, CACHED.replace("E=1", "E=2"))
    assert cached(steps(store, context)[1]) == [True, True, False, False]
    write(context, CACHED.replace("E=1", "E=1\nLABEL a=b"))
    assert cached(steps(store, context)[1]) == [True] * 4
    write(context, CACHED.replace("E=1", "E=1\nUSER 5"))
    with pytest.raises(ImageError, match=r"Containerfile:7: RUN echo .*: exit status 1"):
        steps(store, context)  # who may not write there
    write(context, CACHED)
    told = steps(store, context, cache=False)[1]
    assert cached(told) == [False] * 4


def test_copied_from_another_stage(context, store) -> None:
    write(context, "FROM scratch AS a\nCOPY one.txt /\nFROM scratch\nCOPY --from=a /one.txt /\n")
    steps(store, context)
    assert cached(steps(store, context)[1]) == [True, True]
    (context / "one.txt").write_text("other")
    assert cached(steps(store, context)[1]) == [False, False]


def test_gc_keeps_what_is_named(context, store) -> None:
    write(context, CACHED)
    made, _ = steps(store, context, tags=["app", "localhost:5000/app:2"])
    assert list(store.names()) == ["docker.io/library/app:latest", "localhost:5000/app:2"]
    store.gc()
    assert cached(steps(store, context)[1]) == [True] * 4
    assert store.image("app").descriptor["digest"] == made["digest"]
    store.untag("docker.io/library/app:latest")
    store.untag("localhost:5000/app:2")
    store.gc()
    for name in ("layers", "cache", "blobs/sha256", "leases"):
        assert os.listdir(f"{store.root}/{name}") == []
    assert cached(steps(store, context)[1]) == [False] * 4
    assert store.fsck() == []


def test_the_same_digest(context, tmp_path, monkeypatch) -> None:
    """SOURCE_DATE_EPOCH; without it, times differ."""
    write(context, CACHED + "RUN mkdir /m && touch /m/b /m/a && ln /m/a /m/c\nADD some.tar.gz /t\n")
    digests = []
    for n, when in enumerate(("", "1600000000", "1600000000")):
        monkeypatch.setenv("SOURCE_DATE_EPOCH", when)
        store = Store(str(tmp_path / f"store-{n}"))
        made, _ = steps(store, context)
        digests.append(made["digest"])
        image = store.open("x", made)
        if when:
            told = [image.config["created"], *(one["created"] for one in image.config["history"])]
            assert set(told) == {"2020-09-13T12:26:40Z"}
        time.sleep(1.1)  # times are whole seconds
        for path in context.rglob("*"):
            os.utime(path, follow_symlinks=False)
    assert digests[1] == digests[2] != digests[0]
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "yesterday")
    with pytest.raises(ImageError, match="SOURCE_DATE_EPOCH=yesterday"):
        steps(store, context)


# --- what goes wrong ---------------------------------------------------------------------------


def test_failures_name_the_line(context, store) -> None:
    for line, message in (
        ("RUN exit 7", "RUN exit 7: exit status 7"),
        ('RUN ["/nosuch"]', "/nosuch"),
        ("RUN echo of the command >&2; exit 1", "exit status 1\nof the command"),
        ("RUN sh -c 'kill -9 $$'; exit $?", "exit status 137"),
        ("COPY nosuch /", "'nosuch': no such file or directory"),
        ("COPY one.txt rootfs/../../../../etc/passwd /", "'etc/passwd': no such file"),
        ("COPY no* /", "nothing in the context fits"),
        ("COPY [ /", r"'[': [ without its end"),
        ("COPY --chown=nobody one.txt /", "user 'nobody' is not in the image's /etc/passwd"),
        ("COPY --chown=0:nobody one.txt /", "group 'nobody' is not"),
        ("COPY --chmod=u+x one.txt /", "--chmod=u+x: octal digits"),
        ("COPY one.txt /bin/busybox/x", "not a directory"),
        (
            "COPY one.txt /tree\nCOPY tree /tree",
            "into the image: 'tree': 'tree' in its path is not a directory",
        ),
        ("ADD https://example.org/ /x", "not supported"),
        ("ADD git@example.org:x /x", "not supported"),
        ("USER nobody\nRUN true", "user 'nobody' is not in the image's"),
        ("EXPOSE 0", "EXPOSE '0': as in"),
        ("EXPOSE 10-9", "EXPOSE '10-9': as in"),
        ("USER $NOBODY", "it comes to nothing"),
        ("ENV A=${B:?missing}", "B: missing"),
        ("FROM --platform=linux/arm64 x", "FROM: --platform is not supported"),
        ("FROM nosuchimage", "no such image: nosuchimage"),
    ):
        write(context, f"FROM scratch\nCOPY rootfs /\nLABEL a=b\n{line}\n")
        with pytest.raises(ImageError) as caught:
            steps(store, context)
        where = 4 + line.count("\n")
        assert caught.value.message.startswith(f"Containerfile:{where}: "), line
        assert message.lower() in caught.value.message.lower(), line
        assert caught.value.exit_code == (1 if "exit status" in message else 125)
        assert not [name for name in os.listdir(f"{store.root}/layers") if "new" in name]
    with pytest.raises(ImageError, match="no such file"):
        steps(store, context / "tree")


@root_only
def test_hostile_contexts(context, store, tmp_path) -> None:
    """Nothing of the host comes into the image, and nothing of the image goes to the host."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (context / "out").symlink_to(outside)
    (context / "file").symlink_to(outside / "secret")
    (context / "up").symlink_to("../outside/secret")
    (context / "self").symlink_to("self")
    for source in ("out/secret", "file", "up", "out"):
        write(context, f"FROM scratch\nCOPY {source} /x\n")
        with pytest.raises(ImageError, match=f"Containerfile:2: .*{source}.*out of the context"):
            steps(store, context)
    write(context, "FROM scratch\nCOPY self /x\n")
    with pytest.raises(ImageError, match=r"Containerfile:2: .*symbolic links"):
        steps(store, context)
    (context / "proc").symlink_to(f"/proc/{os.getpid()}/root")
    write(context, "FROM scratch\nCOPY proc/etc/hostname /x\n")
    with pytest.raises(ImageError, match="out of the context"):
        steps(store, context)

    name = b"not-utf8-\xff\n"
    odd = context / "odd"
    odd.mkdir()
    (odd / os.fsdecode(name)).write_text("odd")
    (odd / "link").symlink_to(outside)
    os.mkfifo(odd / "fifo")
    write(context, "FROM scratch\nCOPY odd /odd/\nCOPY od*/n* /two/\n")
    made, _ = steps(store, context)
    root = files(store, made, tmp_path)
    assert sorted(os.listdir(os.fsencode(root / "odd"))) == [b"fifo", b"link", name]
    assert (root / "odd/link").is_symlink()
    assert os.listdir(os.fsencode(root / "two")) == [name]

    deep = context / "deep"
    here = deep
    for _ in range(40):
        here.mkdir()
        here = here / ("d" * 90)
    write(context, "FROM scratch\nCOPY deep /deep\n")
    steps(store, context)

    # The image has symlinks to where the host has something
    shutil.rmtree(context / "rootfs/etc")
    (context / "rootfs/etc").symlink_to(outside)
    (context / "rootfs/lead").symlink_to(outside)
    (context / "rootfs/file").symlink_to(outside / "new")
    (context / "rootfs/dangling").symlink_to("/nowhere/at/all")
    lines = [
        "FROM scratch", f"COPY one.txt {outside}/inside", "COPY rootfs /", "COPY one.txt /lead/",
        "COPY one.txt /file", "WORKDIR /lead/work", "RUN test -s /etc/hosts",
    ]  # fmt: skip
    write(context, "\n".join([*lines, "COPY --from=0 /lead/inside /again"]))
    with pytest.raises(ImageError, match=r"Containerfile:8: no such image: 0"):
        steps(store, context)
    write(context, "\n".join(lines))
    made, _ = steps(store, context)
    assert os.listdir(outside) == ["secret"]
    root = files(store, made, tmp_path)
    inside = root / str(outside).lstrip("/")
    assert sorted(os.listdir(inside)) == ["inside", "one.txt", "work"]
    assert (root / "file").read_text() == "one\n"
    write(context, "\n".join([*lines, "COPY one.txt /dangling/x"]))
    with pytest.raises(ImageError, match=r"Containerfile:8: .*dangling"):
        steps(store, context)


def test_hostile_tars(context, store, tmp_path) -> None:
    for name, member, message in (
        ("up", {"name": "../up"}, "in its name"),
        ("device", {"name": "x", "type": tarfile.CHRTYPE, "devmajor": 1}, "device node"),
    ):
        with tarfile.open(context / f"{name}.tar", "w") as archive:
            info = tarfile.TarInfo()
            for key, value in member.items():
                setattr(info, key, value)
            archive.addfile(info)
        write(context, f"FROM scratch\nADD {name}.tar /\n")
        with pytest.raises(ImageError, match=f"Containerfile:2: ADD.*{message}"):
            steps(store, context)
    # Not tars: copied as they are
    (context / "zeros").write_bytes(bytes(4096))
    (context / "text.gz").write_bytes(b"\x1f\x8b\x08 no gzip")
    (context / "nothing").touch()
    write(context, "FROM scratch\nADD zeros text.gz nothing /\n")
    root = files(store, steps(store, context)[0], tmp_path)
    assert sorted(os.listdir(root)) == ["nothing", "text.gz", "zeros"]


def test_a_file_that_changes_while_it_is_copied(context, store, monkeypatch) -> None:
    """The cache would remember the old content by the new one's digest."""
    from minicontainer.images import build as module

    pack, calls = module.pack, []

    def changing(*words, **more):
        yield from pack(*words, **more)
        calls.append(1)
        (context / "one.txt").write_text(f"changed {len(calls)}")

    monkeypatch.setattr(module, "pack", changing)
    write(context, "FROM scratch\nCOPY one.txt /\n")
    with pytest.raises(ImageError, match=r"Containerfile:2: .*changed while it was copied"):
        steps(store, context)


# --- processes ---------------------------------------------------------------------------------


def start(store: Store, *words: str, **more) -> subprocess.Popen:
    environment = {**os.environ, "MINICONTAINER_DATA": os.path.dirname(store.root)}
    return subprocess.Popen([*BUILD, "--network", "none", *words], env=environment, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more)  # fmt: skip


@pytest.fixture
def shared(tmp_path: Path) -> Store:
    """Where the command line finds it, too."""
    return Store(str(tmp_path / "data/images"))


def marker_is_there(store: Store, name: bytes) -> bool:
    found = subprocess.run(["find", store.root, "-name", name], capture_output=True)
    return bool(found.stdout)


def nobody_sleeps() -> bool:
    return "sleep 1000" not in subprocess.check_output(["ps", "-e", "-o", "args"], text=True)


SLEEPS = "FROM scratch\nCOPY rootfs /\nRUN touch /asleep && sleep 1000 && echo never > /never\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(context, shared, number) -> None:
    write(context, SLEEPS)
    process = start(shared, str(context), start_new_session=True)
    until(lambda: marker_is_there(shared, b"asleep"), 30)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)  # as Ctrl-C
    else:
        process.send_signal(number)
    _, told = process.communicate(timeout=30)
    assert process.returncode == 128 + number, told
    assert not [name for name in os.listdir(f"{shared.root}/layers") if "new" in name]
    assert os.listdir(f"{shared.root}/leases") == []
    until(
        lambda: "sleep 1000" not in subprocess.check_output(["ps", "-e", "-o", "args"], text=True),
        30,
    )


@pytest.mark.parametrize("where", ["RUN", "COPY"])
def test_killed(context, shared, where) -> None:
    write(context, SLEEPS)
    if where == "COPY":
        (context / "zeros").mkdir()
        for n in range(3000):
            (context / f"zeros/{n}").write_bytes(b"x" * n)
        (context / "zeros/asleep").touch()
        write(context, "FROM scratch\nCOPY rootfs /\nCOPY zeros /zeros\n")
    process = start(shared, str(context))
    until(lambda: marker_is_there(shared, b"asleep" if where == "RUN" else b"10"), 30)
    process.kill()
    process.communicate()
    until(
        lambda: "sleep 1000" not in subprocess.check_output(["ps", "-e", "-o", "args"], text=True),
        30,
    )
    assert shared.fsck() == []
    shared.gc()
    assert shared.fsck() == []
    assert not [name for name in os.listdir(f"{shared.root}/layers") if "new" in name]
    write(context, (context / "Containerfile").read_text().replace("sleep 1000", "true"))
    made, _ = steps(shared, context)
    assert shared.fsck() == []
    assert len(shared.open("x", made).layers) == 2


def test_two_builds_and_gc_at_once(context, shared, tmp_path) -> None:
    write(context, CACHED + "".join(f"RUN echo {n} > /{n}\n" for n in range(4)))
    processes = [start(shared, "-t", f"app{n}", str(context)) for n in range(3)]
    stop = threading.Event()

    def collect() -> None:
        while not stop.is_set():
            shared.gc()

    thread = threading.Thread(target=collect)
    thread.start()
    try:
        for process in processes:
            _, told = process.communicate(timeout=120)
            assert process.returncode == 0, told
    finally:
        stop.set()
        thread.join()
    assert shared.fsck() == []
    for n in range(3):
        root = files(shared, shared.image(f"app{n}").descriptor, tmp_path)
        assert [(root / str(n)).read_text() for n in range(4)] == ["0\n", "1\n", "2\n", "3\n"]


@pytest.mark.parametrize("ranges", [False, True], ids=["one id", "ranges of ids"])
def test_an_ordinary_user_builds(context, tmp_path, ordinary_user, ranges: bool) -> None:
    """With one id, or with those of /etc/subuid: then an image's users are users."""
    before = ["sh", "-c", 'umask 077 && exec "$@"', "sh", *ordinary_user]
    text = CACHED + "RUN id -u > /id && rm -r /tree && mkdir /tree && touch /tree/new\n"
    if ranges:
        if os.geteuid() or not shutil.which("newuidmap"):
            pytest.skip("it takes root, and newuidmap: apt install uidmap")
        (tmp_path / "sub").write_text("somebody:400000:65536\n")
        user = f"somebody:x:{ORDINARY_UID}:{ORDINARY_UID}::/:/bin/sh\n"
        (tmp_path / "passwd").write_text(Path("/etc/passwd").read_text() + user)
        for path in ("/etc/subuid", "/etc/subgid"):
            if not os.path.exists(path):
                pytest.skip(f"there is no {path}")
        binds = (("sub", "/etc/subuid"), ("sub", "/etc/subgid"), ("passwd", "/etc/passwd"))
        script = "; ".join(f"mount --bind {tmp_path}/{name} {path}" for name, path in binds)
        before = ["unshare", "--mount", "sh", "-c", f'{script}; exec "$@"', "sh", *before]
        text += "RUN chown -R 10 /tree\nCOPY --chown=app one.txt /home/app/\nUSER app\n"
        text += "RUN stat -c '%u %g' /home/app/one.txt > /tree/new && id -G >> /tree/new\n"
        text += "FROM scratch\nCOPY --from=0 /tree /tree\nCOPY --from=0 /id /\n"
    write(context, text)
    data = tmp_path / "data"
    data.mkdir()
    data.chmod(0o777)
    for directory in (context, *tmp_path.parents):
        directory.chmod(directory.stat().st_mode | 0o055)
    (context / "tree/secret").chmod(0o644)
    (context / "tree/sub").chmod(0o755)
    words = [*before, "env", f"MINICONTAINER_DATA={data}", *BUILD, "-t", "app", str(context)]
    for again in (False, True):
        done = subprocess.run(words, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("(cached)") == again * (10 if ranges else 5)
    store = Store(str(data / "images"))
    assert not [name for name in os.listdir(f"{store.root}/layers") if "new" in name]
    assert store.fsck() == []
    root = files(Store(str(tmp_path / "copy")), _taken(store, tmp_path / "copy"), tmp_path)
    assert (root / "id").read_text() == "0\n"
    assert os.listdir(root / "tree") == ["new"]
    assert (root / "tree/new").read_text() == ("10 20\n20 30\n" if ranges else "")
    found = {path.lstat().st_uid for path in root.rglob("*")}
    assert found == ({0, 10} if ranges else {os.geteuid()})


def _taken(store: Store, place: Path) -> dict:
    """The image app, in a store of this user's own."""
    from minicontainer.images.archive import load
    from minicontainer.images.compression import Chunks

    other = Store(str(place))
    load(other, Chunks(save(store, ["docker.io/library/app:latest"])))
    return other.image("app").descriptor


# --- the command line --------------------------------------------------------------------------


def test_command_line(context, shared, tmp_path) -> None:
    write(context, "FROM scratch\nCOPY rootfs /\nARG A\nRUN echo said $A; exit $A\n", "Other")
    file = str(context / "Other")

    def run(*words: str, **more) -> tuple[int, str, str]:
        process = start(shared, *words, stdin=subprocess.PIPE)
        out, told = process.communicate(timeout=60, **more)
        return process.returncode, out, told

    code, out, told = run("-f", file, "--build-arg", "A=0", str(context))
    assert code == 0, told
    assert re.fullmatch("sha256:[0-9a-f]{64}\n", out)
    digest = out
    assert "[stage 0 4/4] RUN echo said $A; exit $A\nsaid 0\n" in told
    code, out, told = run("-f", file, "--build-arg", "A=3", "-t", "no", str(context))
    assert (code, out) == (1, "")
    assert told.endswith("Other:4: RUN echo said $A; exit $A: exit status 3\n"), told
    assert shared.names() == {}
    assert run("-q", "-f", file, "--build-arg", "A=0", str(context)) == (
        0,
        digest,
        "",
    )
    code, _, told = run("-q", "-f", file, "--build-arg", "A=3", str(context))
    assert (code, told.splitlines()[-1]) == (1, "said 3")
    for words, message in (
        ([], "build takes one DIRECTORY"),
        (["--network", "bridge", "."], "either none or host"),
        (["-t", "Upper", str(context)], "image name"),
    ):
        code, _, told = run(*words)
        assert code == 125
        assert message in told


def test_nothing_is_done_again(context, shared) -> None:
    """A build that is wholly cached writes nothing; its time is the benchmark's to judge."""
    write(context, CACHED + "RUN echo 1 > /1\nRUN echo 2 > /2\n")
    words = ("-t", "app", str(context))
    assert start(shared, *words).communicate()[0]

    def state() -> dict[str, int]:
        paths = Path(shared.root).rglob("*")
        return {str(path): path.lstat().st_mtime_ns for path in paths if not path.is_dir()}

    before = state()
    process = start(shared, *words)
    assert process.communicate()[0]
    assert {k: v for k, v in state().items() if not k.endswith("/lock")} == {
        k: v for k, v in before.items() if not k.endswith("/lock")
    }
