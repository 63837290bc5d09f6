"""Image names, by docker's rules; the cases follow those of distribution/reference."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minicontainer.images.errors import ImageError
from minicontainer.images.reference import Reference, parse

DIGEST = "sha256:" + "f" * 64
HEX = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5b7a9f1e3d5d7c9b1a3f5e7d9c1b3a"


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/foo/bar", "docker.io/library/foo/bar:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("test_com/foo", "docker.io/test_com/foo:latest"),
        ("test.com:5000", "docker.io/library/test.com:5000"),  # no slash: a name and its tag
        ("test.com/repo:tag", "test.com/repo:tag"),
        ("test:5000/repo", "test:5000/repo:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost", "docker.io/library/localhost:latest"),
        ("localhost:5000/a/b/c:v1", "localhost:5000/a/b/c:v1"),
        ("Registry/app", "Registry/app:latest"),  # capitals cannot be a user's name
        ("127.0.0.1:5000/debian", "127.0.0.1:5000/debian:latest"),
        ("[::1]:5000/debian", "[::1]:5000/debian:latest"),
        ("xn--n3h.com/myimage:xn--n3h.com", "xn--n3h.com/myimage:xn--n3h.com"),
        ("foo/foo_bar.com:8080", "docker.io/foo/foo_bar.com:8080"),
        ("docker---rules/dock__er", "docker.io/docker---rules/dock__er:latest"),
        (f"a/b@{DIGEST}", f"docker.io/a/b@{DIGEST}"),
        (f"a/b:t@{DIGEST}", f"docker.io/a/b:t@{DIGEST}"),
        (f"docker.io/{HEX}", f"docker.io/library/{HEX}:latest"),
        ("a/" * 122 + "a", "docker.io/" + "a/" * 122 + "a:latest"),  # 255 characters with both
    ],
)
def test_names_become_full(text: str, full: str) -> None:
    assert str(parse(text)) == full


@pytest.mark.parametrize(
    "text",
    [
        "", " ", ":tag", f"@{DIGEST}", "a:", "a@", "a@sha256:abc", "a@md5:" + "0" * 32, "a:-tag",
        "a:" + "t" * 129, "A", "docker/Docker", "-a", "a-", "a//b", "a/", "/a", "a/../b", "..",
        "a\n", "a:t\n", f"a@{DIGEST}\n", "a b", "dock..er/docker", "dock_.er/x", "____/____", HEX,
        "https://github.com/a/b", "http://localhost/a", "host:99999/a", "host:0/a", "host:/a",
        "user@host/a", "host:5000:6000/a", "é/a", "a:é", "a\0", "a\x1b[31m", "localhost:٣/a",
        "a/" * 123 + "a", "[::1/a", "-host.com/a", "host-.com/a", "x" * 1_000_000,
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ImageError) as caught:
        parse(text)
    message = str(caught.value)
    assert message.startswith("image name ")
    assert message.isprintable(), "a hostile name can write to the terminal"
    assert len(message) < 400


def test_a_capital_letter_is_explained() -> None:
    with pytest.raises(ImageError, match=r"lower-case .*: user/app\?"):
        parse("docker.io/user/App")


def test_what_the_registry_is_asked() -> None:
    assert parse("busybox").host == "registry-1.docker.io"
    assert parse("localhost:5000/a").host == "localhost:5000"
    assert parse("a:t").wanted == "t"
    assert parse(f"a:t@{DIGEST}").wanted == DIGEST


label = st.from_regex(r"[a-zA-Z0-9]([a-zA-Z0-9-]{0,8}[a-zA-Z0-9])?", fullmatch=True)
port = st.one_of(st.just(""), st.integers(1, 65535).map(":{}".format))
host = st.builds("{}.{}{}".format, label, label, port) | st.integers(1, 65535).map(
    "localhost:{}".format
)
component = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}", fullmatch=True)
repository = st.lists(component, min_size=1, max_size=4).map("/".join)
tag = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", fullmatch=True)
digest = st.from_regex(r"sha256:[a-f0-9]{64}", fullmatch=True)


@given(host, repository, tag | st.just(""), digest | st.just(""))
def test_every_part_comes_back(host: str, repository: str, tag: str, digest: str) -> None:
    text = f"{host}/{repository}" + (tag and f":{tag}") + (digest and f"@{digest}")
    found = parse(text)
    if host in ("docker.io", "index.docker.io"):
        return
    assert found == Reference(host, repository, tag or ("" if digest else "latest"), digest)


@given(component, tag)
def test_a_short_name_is_one_of_docker_hub(component: str, tag: str) -> None:
    found = parse(f"{component}:{tag}")
    assert found == Reference("docker.io", f"library/{component}", tag, "")
    assert parse(str(found)) == found


@given(st.text(max_size=40) | st.text("aA0.:/@-_[]\n", max_size=40))
def test_any_text_is_a_name_or_an_error(text: str) -> None:
    try:
        found = parse(text)
    except ImageError as error:
        words = str(error)
        assert words.isprintable()
        return
    assert parse(str(found)) == found
    # It goes into an address and into the name of a store's entry.
    assert not set(str(found)) & set(" \t\n\r?#%\\\0")
    assert ".." not in str(found)
