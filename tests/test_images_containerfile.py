"""Containerfiles as docker reads them, and what of a context is ignored."""

from __future__ import annotations

import re
import string

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from minicontainer.images.containerfile import INSTRUCTIONS, Containerfile, Instruction
from minicontainer.images.errors import ImageError
from minicontainer.images.ignore import Ignore


def parse(text: str) -> list[Instruction]:
    """The instructions after FROM."""
    return Containerfile(f"FROM scratch\n{text}".encode()).stages[0].instructions


def words(text: str) -> list[str]:
    (one,) = parse(text)
    return one.words


def expand(text: str, **variables: str) -> str:
    return Containerfile(b"FROM scratch").expand(1, text, variables)


def refused(text: str | bytes) -> str:
    with pytest.raises(ImageError) as caught:
        Containerfile(text if isinstance(text, bytes) else text.encode())
    return caught.value.message


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("RUN a \\\n b", ["RUN a  b"]),
        ("RUN a \\  \n b", ["RUN a  b"]),  # blanks after it do not matter
        ("RUN a \\\n# comment\n\n  # another\n b \\\n c\nUSER x", ["RUN a  b  c", "USER x"]),
        ("RUN a \\\\\nUSER b", ["RUN a \\\\", "USER b"]),  # the escape is escaped
        ("  # comment\n\n  RUN a # no comment\n", ["RUN a # no comment"]),
        ("RUN a\r\nUSER b\r\n", ["RUN a", "USER b"]),
        ("RUN a \\\r\n b", ["RUN a  b"]),
        ("run a\nUsEr b", ["run a", "UsEr b"]),
        ("RUN a \\", ["RUN a"]),  # at the end of the file
    ],
)
def test_lines(text: str, lines: list[str]) -> None:
    assert [one.text for one in parse(text)] == lines


def test_line_numbers() -> None:
    found = parse("\n# x\nRUN a \\\n\n b\n\nRUN <<E\nx\nE\nUSER c")
    assert [(one.name, one.line) for one in found] == [("RUN", 4), ("RUN", 8), ("USER", 11)]


def test_directives() -> None:
    text = b"\xef\xbb\xbf# syntax=docker/dockerfile:1\n#escape = \\\n\nFROM scratch\nRUN a \\\n b\n"
    file = Containerfile(text, "File")
    assert file.stages[0].instructions[0].words == ["a  b"]
    assert file.notices == ["File:1: # syntax= is ignored", "File:2: # escape= is ignored"]
    late = Containerfile(b"# comment\n# escape=`\nFROM scratch\nRUN a \\\n b\n")
    assert late.notices == []
    assert refused("# syntax=x\n# escape=`\nFROM scratch").startswith("Containerfile:2: ")


@pytest.mark.parametrize(
    ("text", "expected", "is_exec"),
    [
        ('RUN ["a", "b c"]', ["a", "b c"], True),
        ("RUN [ -e /x ] || y", ["[ -e /x ] || y"], False),
        ("RUN ['a']", ["['a']"], False),
        ("CMD []", [], True),
        ("CMD", [], False),
        ('COPY ["a b", "c"]', ["a b", "c"], True),
        ("COPY a\t b  c", ["a", "b", "c"], False),
        ('VOLUME ["/a"]', ["/a"], True),
        ("VOLUME /a /b", ["/a", "/b"], False),
        ('ENTRYPOINT exec "$@"', ['exec "$@"'], False),
        ('SHELL ["/bin/bash", "-c"]', ["/bin/bash", "-c"], True),
        ('ENV a=1 b="2 3" c=4\\ 5', ["a=1", 'b="2 3"', "c=4\\ 5"], False),
        ("ENV a b  c=d", ["a=b  c=d"], False),
        ("LABEL 'a b'=c", ["'a b'=c"], False),
        ("ARG a b=1", ["a", "b=1"], False),
        ("WORKDIR /a b", ["/a b"], False),
    ],
)
def test_words(text: str, expected: list[str], is_exec: bool) -> None:
    (one,) = parse(text)
    assert (one.words, one.exec) == (expected, is_exec)


def test_flags() -> None:
    (one,) = parse('COPY --from=a --chown="x:y" --chmod=755 b c')
    assert one.flags == {"from": "a", "chown": '"x:y"', "chmod": "755"}
    assert one.words == ["b", "c"]
    stage = Containerfile(b"from y As Name\n").stages[0]
    assert (stage.base, stage.name, stage.origin.flags) == ("y", "name", {})


@pytest.mark.parametrize(
    ("text", "expected", "documents"),
    [
        ("RUN <<E\na\n\tb\nE", ["a\n\tb\n"], [("E", "a\n\tb\n", True)]),
        ("RUN <<-'E'\n\ta\n\tE", ["a\n"], [("E", "a\n", False)]),
        ("RUN cat <<E >x\na\\\nE", ["cat <<E >x\na\\\nE"], []),
        ("RUN a <<-A 5<<B\n\tx\n\tA\n# no comment\nB",
         ["a <<-A 5<<B\n\tx\nA\n# no comment\nB"], []),
        ("RUN <<A && <<B\nA\nB", ["<<A && <<B\nA\nB"], []),
        ("RUN cat <<<x", ["cat <<<x"], []),
        ("RUN echo 'a <<E'", ["echo 'a <<E'"], []),
        ("RUN echo it's <<E", ["echo it's <<E"], []),  # as docker: all after the quote is quoted
        ("COPY <<A <<'B' /x\n$a\nA\n$b\nB", ["<<A", "<<'B'", "/x"],
         [("A", "$a\n", True), ("B", "$b\n", False)]),
        ("COPY <<-A /x\n\t\ta\n\tA", ["<<-A", "/x"], [("A", "a\n", True)]),
        ("CMD <<A", ["<<A"], []),  # not here
    ],
)  # fmt: skip
def test_here_documents(text: str, expected, documents) -> None:
    (one,) = parse(text)
    assert (one.words, one.heredocs) == (expected, documents)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$a", "A"), ("${a}", "A"), ("$a$b", "AB B"), ("$ab", ""), ("${a}b", "Ab"), ("x$", "x$"),
        ("$a.$", "A.$"), ("\\$a", "$a"), ("\\\\$a", "\\A"), ("'$a'", "$a"), ('"$a"', "A"),
        ('"\\$a"', "$a"), ('"\\a"', "\\a"), ("\\a", "a"), ("'\\a'", "\\a"), ('"\'$a\'"', "'A'"),
        ("'\"'", '"'), ("a\\ b", "a b"), ("a\\", "a"), ("$1", ""), ("$$", ""), ("é$a", "éA"),
        ("${no:-x}", "x"), ("${no-x}", "x"), ("${empty:-x}", "x"), ("${empty-x}", ""),
        ("${a:-x}", "A"), ("${a:+x}", "x"), ("${no:+x}", ""), ("${empty:+x}", ""),
        ("${empty+x}", "x"), ("${no:-${a}}", "A"), ("${no:-${no:-\"a b\"}}", "a b"),
        ("${no:-'}'}", "}"), ("${no:-\\}}", "}"), ("${a:?x}", "A"), ("${empty?x}", ""),
        ("{$a}", "{A}"), ("${no:-}", ""),
    ],
)  # fmt: skip
def test_variables(text: str, expected: str) -> None:
    assert expand(text, a="A", b="B B", empty="") == expected


def test_variables_of_documents() -> None:
    file = Containerfile(b"FROM scratch")
    text = """it's "$a" \\$a \\\\ \\" \\n ${no:-"x"}"""
    assert file.expand(1, text, {"a": "A"}, document=True) == """it's "A" $a \\ \\" \\n x"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("'a", "a ' without its end"), ('"a', '" is missing'), ('"${a', "has no end"),
        ("${a", "has no end"), ("${", "without a name"), ("${}", "without a name"),
        ("${a:=b}", "${a:=…} is not supported"), ("${a#b}", "${a#…} is not supported"),
        ("${a:}", "not supported"), ("${a:-b", "} is missing"), ("${no:?tell}", "no: tell"),
        ("${no?}", "no: not set"), ("${a:-" * 5000, "nested too deep"),
    ],
)  # fmt: skip
def test_wrong_variables(text: str, message: str) -> None:
    with pytest.raises(ImageError, match=f"^Containerfile:7: .*{re.escape(message)}"):
        Containerfile(b"FROM scratch").expand(7, text, {})


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("", 1, "no FROM"),
        ("# only\n\nARG a", 3, "no FROM"),
        ("RUN a\nFROM b", 1, "RUN before the first FROM"),
        ("FROM", 1, "FROM"),
        ("FROM a b", 1, "FROM IMAGE [AS NAME]"),
        ("FROM a IN b", 1, "FROM IMAGE [AS NAME]"),
        ("FROM a AS 1b", 1, "cannot be a stage's name"),
        ("FROM a AS b\nFROM a AS B", 2, "the stage b is there already"),
        ("FROM --x=y a", 1, "FROM: --x is not supported"),
        ("FROM a\n\nRUN --mount=type=cache,target=/x y", 3, "RUN: --mount is not supported"),
        ("FROM a\nRUN --network=none y", 2, "RUN: --network is not supported"),
        ("FROM a\nCOPY --link b c", 2, "COPY: --link is not supported"),
        ("FROM a\nCOPY --chown b c", 2, "COPY: --chown is not supported"),
        ("FROM a\nADD --from=x b c", 2, "ADD: --from is not supported"),
        ("FROM a\nADD --checksum=x b c", 2, "ADD: --checksum is not supported"),
        ("FROM a\nHEALTHCHECK NONE", 2, "'HEALTHCHECK' is not supported"),
        ("FROM a\nONBUILD RUN x", 2, "'ONBUILD' is not supported"),
        ("FROM a\nmaintainer x", 2, "'maintainer' is not supported"),
        ("FROM a\nRUNN x", 2, "'RUNN' is no instruction"),
        ("FROM a\n\x1b[31m", 2, r"'\x1b[31m' is no instruction"),
        ("FROM a\nRUN", 2, "RUN"),
        ("FROM a\nCOPY b", 2, "COPY"),
        ('FROM a\nCOPY ["b"]', 2, "COPY"),
        ("FROM a\nENV b", 2, "ENV b: it needs a value"),
        ("FROM a\nENV b=1 c", 2, "ENV: 'c' is no NAME=VALUE"),
        ("FROM a\nLABEL =b", 2, "LABEL: '=b' is no NAME=VALUE"),
        ("FROM a\nSHELL /bin/sh", 2, "SHELL takes a JSON list"),
        ("FROM a\nCMD [1]", 2, "strings only"),
        ("FROM a\nCMD [[]]", 2, "strings only"),
        ('FROM a\nCMD ["\\ud800"]', 2, "half a character"),
        ('FROM a\nCMD ["\\u0000"]', 2, "NUL"),
        ("FROM a\nRUN x\0y", 2, "NUL"),
        ("FROM a\nUSER", 2, "USER"),
        ("FROM a\nRUN <<E\nx\n E\n", 2, "the here-document E has no end"),
        ("FROM a\nCOPY <<E <<F /x\nE\n", 2, "the here-document F has no end"),
        ("FROM a\nCOPY --from=x <<E /y\nE", 2, "--from together with"),
        (b"FROM a\nRUN x\nRUN \xff", 3, "not UTF-8"),
    ],
)
def test_refusals(text: str | bytes, line: int, message: str) -> None:
    told = refused(text)
    assert told.startswith(f"Containerfile:{line}: ")
    assert message in told


LINE = st.one_of(
    st.builds(
        " ".join,
        st.lists(
            st.one_of(
                st.sampled_from([
                    *INSTRUCTIONS, "--from=x", "--mount=x", "<<E", "<<-'E'", "E", "[", '["a"]',
                    "\\", "a=b", "$a", "${a:-b}", '"', "'", "#", "# escape=`", "AS", "x:1", "\r",
                ]),
                st.text(alphabet=string.printable, max_size=8),
                st.text(max_size=3),
            ),
            max_size=6,
        ),
    ),
    st.text(max_size=30),
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.lists(LINE, max_size=8), st.booleans())
@example(["CMD " + "[" * 100_000], True)
@example(['ENV a="' + "${a:-" * 3000], True)
def test_any_text_is_parsed_or_refused_with_its_line(lines: list[str], begin: bool) -> None:
    text = "\n".join([*(["FROM scratch"] if begin else []), *lines])
    count = text.count("\n") + 1
    message = ""
    try:
        file = Containerfile(text.encode("utf-8", "surrogatepass"))
        for stage in file.stages:
            for one in stage.instructions:
                assert one.name in INSTRUCTIONS
                assert 1 <= one.line <= count
                for word in one.words:
                    file.expand(one.line, word, {"a": "b"})
    except ImageError as error:
        message = error.message
    if message:
        number = re.match(r"Containerfile:(\d+): .", message)
        assert number, message
        assert 1 <= int(number[1]) <= count


@settings(max_examples=100, deadline=None)
@given(st.text(), st.text(alphabet="ab/*?[]!^-\\.\n", max_size=20))
def test_any_patterns_are_read_or_refused(text: str, patterns: str) -> None:
    for content in (text, patterns):
        try:
            assert Ignore(content)("a/b") in (True, False)
            message = ".containerignore:1: fine"
        except ImageError as error:
            message = error.message
        assert re.match(r"\.containerignore:\d+: .", message)


@pytest.mark.parametrize(
    ("patterns", "ignored", "kept"),
    [
        ("a", ["a", "a/b", "a/b/c"], ["b/a", "ab", "A"]),
        ("/a/", ["a", "a/b"], ["b/a"]),
        ("*", ["a", "a/b", ".a"], []),
        ("*.md", ["a.md", ".md", "a.md/x"], ["x/a.md", "a.mdx"]),
        ("*/a", ["x/a", "x/a/y"], ["a", "x/y/a"]),
        ("**/a", ["a", "x/a", "x/y/a", "x/a/y"], ["ab"]),
        ("a/**", ["a/b", "a/b/c"], ["ab"]),
        ("**/a/**/b", ["a/b", "x/a/y/z/b"], ["b"]),
        ("**", ["a", "a/b"], []),
        ("a?", ["ab", "ab/c"], ["a", "abc", "a/"]),
        ("[a-c]x", ["ax", "cx"], ["dx", "x"]),
        ("[^a]x", ["bx"], ["ax", "/x"]),
        ("a\\*", ["a*"], ["ab"]),
        ("./a\n b ", ["a", "b"], ["c"]),
        ("#a\n\n", [], ["a", "#a"]),
        (" #a", ["#a"], []),
        ("*\n!a", ["b", "ab"], ["a", "a/b"]),
        ("a\n!a/b\na/b/c", ["a", "a/x", "a/b/c"], ["a/b", "a/b/d"]),
        ("!a\na", ["a"], []),
        ("*.md\n!README*.md\nREADME-secret.md", ["x.md", "README-secret.md"], ["README.md"]),
        ("a.b", ["a.b"], ["aXb"]),
        ("a(b)+", ["a(b)+"], ["ab"]),
        ("../a", [], ["a"]),
    ],
)
def test_ignored(patterns: str, ignored: list[str], kept: list[str]) -> None:
    ignore = Ignore(patterns)
    assert [path for path in (*ignored, *kept) if ignore(path)] == ignored


def test_wrong_patterns_name_the_line() -> None:
    with pytest.raises(ImageError, match=r"^\.dockerignore:2: 'a\['"):
        Ignore("x\na[", ".dockerignore")
