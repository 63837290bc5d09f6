"""A Containerfile (Dockerfile) as stages of instructions, by docker's rules.

https://docs.docker.com/reference/dockerfile/ says what they are, and where it is silent BuildKit's
frontend/dockerfile does. What is not supported is refused with its line.

PyPI's maintained parser, dockerfile-parse 2.0.1, was tried: it takes the lines of a here-document
for instructions, knows no `# escape=`, makes `:-y}` of `${X:-y}`, and a quote without end is none.
"""

from __future__ import annotations

import re

from ..runtime import jsonfile
from .errors import ImageError

# name -> how the rest is read, how many words it has, its flags. A "line" is one word; a "command"
# is one, too, unless it is a JSON list; "files" and "words" are parted by blanks whatever quotes
# say; the words of "pairs" may have blanks in quotes.
INSTRUCTIONS: dict[str, tuple[str, int, int, tuple[str, ...]]] = {
    "ADD": ("files", 2, 0, ("chown", "chmod")),
    "ARG": ("pairs", 1, 0, ()),
    "CMD": ("command", 0, 0, ()),
    "COPY": ("files", 2, 0, ("from", "chown", "chmod")),
    "ENTRYPOINT": ("command", 0, 0, ()),
    "ENV": ("pairs", 1, 0, ()),
    "EXPOSE": ("words", 1, 0, ()),
    "FROM": ("words", 1, 3, ()),
    "LABEL": ("pairs", 1, 0, ()),
    "RUN": ("command", 1, 0, ()),
    "SHELL": ("command", 1, 0, ()),
    "STOPSIGNAL": ("line", 1, 1, ()),
    "USER": ("line", 1, 1, ()),
    "VOLUME": ("files", 1, 0, ()),
    "WORKDIR": ("line", 1, 1, ()),
}
REFUSED = ("HEALTHCHECK", "MAINTAINER", "ONBUILD")  # of docker's; anything else is a typing error
ESCAPE = "\\"
_DIRECTIVE = re.compile(r"#\s*([A-Za-z][A-Za-z0-9]*)\s*=\s*(.+?)\s*")
_HEREDOC = re.compile(r"\d*<<(-?)([^<]+)")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-]")
_STAGE = re.compile(r"[a-z][a-z0-9_.-]*")


class Instruction:
    """One instruction, its variables not yet expanded.

    name      in capitals
    line      where it begins, from 1
    text      as it was written, lines joined: for people
    flags     name -> value
    words     see INSTRUCTIONS; of "pairs" [name=value, …], quoted
    exec      whether the words came as a JSON list
    heredocs  (name, content, whether variables in it are expanded)
    """

    __slots__ = ("exec", "flags", "heredocs", "line", "name", "text", "words")

    def __init__(self, name: str, line: int, text: str) -> None:
        self.name, self.line, self.text = name, line, text
        self.flags: dict[str, str] = {}
        self.words: list[str] = []
        self.exec = False
        self.heredocs: list[tuple[str, str, bool]] = []


class Stage:
    """What follows a FROM: `base` is an image or a stage before, unexpanded; `name` may be ""."""

    def __init__(self, origin: Instruction) -> None:
        self.origin = origin
        self.base = origin.words[0]
        self.name = origin.words[2].lower() if len(origin.words) > 1 else ""
        self.instructions: list[Instruction] = []


class Containerfile:
    """A parsed file: `arguments` are the ARGs before the first FROM."""

    def __init__(self, data: bytes, name: str = "Containerfile") -> None:
        """Raises ImageError that names the line."""
        self.name = name
        self.notices: list[str] = []
        self.arguments: list[Instruction] = []
        self.stages: list[Stage] = []
        try:
            self._lines = data.removeprefix(b"\xef\xbb\xbf").decode().split("\n")
        except UnicodeDecodeError as error:
            raise self.error(data.count(b"\n", 0, error.start) + 1, "not UTF-8") from None
        self._at = 0  # lines read
        self._directives()
        while self._at < len(self._lines):
            line, text = self._joined()
            if text:
                self._add(self._instruction(line, text))
        if not self.stages:
            raise self.error(len(self._lines), "there is no FROM")

    def error(self, line: int, what: str, hint: str = "", exit_code: int = 125) -> ImageError:
        """An exception that says where."""
        return ImageError(f"{self.name}:{line}: {what}", hint, exit_code)

    def _directives(self) -> None:
        while self._at < len(self._lines):
            found = _DIRECTIVE.fullmatch(self._lines[self._at].strip())
            key = found[1].lower() if found else ""
            if key not in ("escape", "syntax", "check"):
                return
            self._at += 1
            if found and key == "escape" and found[2] != ESCAPE:
                raise self.error(self._at, f"# escape={found[2]} is not supported")
            self.notices.append(f"{self.name}:{self._at}: # {key}= is ignored")

    def _joined(self) -> tuple[int, str]:
        """The next instruction in one line, and where it began; comments in it are left out."""
        text, begin = "", 0
        while self._at < len(self._lines):
            part = self._lines[self._at].rstrip("\r")
            self._at += 1
            bare = part.strip()
            if bare.startswith("#") or (begin and not bare):
                continue
            begin = begin or self._at
            shorter = part.rstrip(" \t")
            goes_on = shorter.endswith(ESCAPE) and not shorter.endswith(2 * ESCAPE)
            text += shorter[:-1] if goes_on else part
            if not goes_on:
                break
        return begin, text.strip()

    def _instruction(self, line: int, text: str) -> Instruction:
        name, rest = (*text.split(None, 1), "")[:2]
        one = Instruction(name.upper(), line, text)
        if one.name not in INSTRUCTIONS:
            known = "is not supported" if one.name in REFUSED else "is no instruction"
            raise self.error(line, f"{name[:40]!a} {known}")
        form, least, most, flags = INSTRUCTIONS[one.name]
        while rest.startswith("--"):
            word = self.split(rest)[0]
            rest = rest[len(word) :].strip()
            flag, equals, value = word[2:].partition("=")
            if flag not in flags or not equals:
                raise self.error(line, f"{one.name}: --{flag[:40]} is not supported")
            one.flags[flag] = value
        one.words = self._words(one, form, rest)
        if not least <= len(one.words) <= (most or len(one.words)):
            raise self.error(line, f"{one.name}: {len(one.words)} words are too few or too many")
        if one.name == "SHELL" and not one.exec:
            raise self.error(line, "SHELL takes a JSON list of strings")
        if one.name in ("ADD", "COPY", "RUN") and not one.exec:
            self._read_heredocs(one, rest)
        if "from" in one.flags and one.heredocs:
            raise self.error(line, "COPY: --from together with a here-document is not supported")
        every = [*one.words, *one.flags.values(), *(content for _, content, _ in one.heredocs)]
        if any("\0" in word or re.search("[\ud800-\udfff]", word) for word in every):
            raise self.error(line, f"{one.name}: a NUL or half a character in a word")
        return one

    def _words(self, one: Instruction, form: str, rest: str) -> list[str]:
        if form in ("command", "files") and rest.startswith("["):
            try:
                found = jsonfile.loads(rest)
            except ValueError:
                found = None  # [ is a program of this name
            if isinstance(found, list):
                if not all(isinstance(word, str) for word in found):
                    raise self.error(one.line, f"{one.name}: a JSON list must have strings only")
                one.exec = True
                return found
        if form in ("files", "words"):
            return rest.split()
        if form != "pairs":
            return [rest] if rest else []
        words = self.split(rest)
        if one.name == "ARG":
            return words
        if words and "=" not in words[0]:  # `ENV NAME the whole rest`
            name, value = (*rest.split(None, 1), "")[:2]
            if not value:
                raise self.error(one.line, f"{one.name} {name[:40]}: it needs a value")
            return [f"{name}={value}"]
        for word in words:
            if "=" not in word or word.startswith("="):
                raise self.error(one.line, f"{one.name}: {word[:40]!a} is no NAME=VALUE")
        return words

    def _read_heredocs(self, one: Instruction, rest: str) -> None:
        for word in self.split(rest):
            found = _HEREDOC.fullmatch(word)
            if not found:
                continue
            name = found[2].strip("'\"")
            lines: list[str] = []
            for line in self._lines[self._at :]:
                bare = line.rstrip("\r").lstrip("\t") if found[1] else line.rstrip("\r")
                if bare == name:
                    break
                # RUN's shell takes the tabs away itself, unless the document is all it gets
                lines.append(bare if found[1] and (one.name != "RUN" or rest == word) else line)
            else:
                raise self.error(one.line, f"{one.name}: the here-document {name[:40]} has no end")
            self._at += len(lines) + 1
            content = "".join(f"{line}\n" for line in lines)
            one.heredocs.append((name, content, name == found[2]))
        if one.name != "RUN":
            return
        if [rest] == [word for word in self.split(rest) if _HEREDOC.fullmatch(word)]:
            one.words = [one.heredocs[0][1]]
        elif one.heredocs:
            one.words = [rest + "".join(f"\n{text}{name}" for name, text, _ in one.heredocs)]
            one.heredocs = []

    def _add(self, one: Instruction) -> None:
        if one.name != "FROM":
            if not self.stages and one.name != "ARG":
                raise self.error(one.line, f"{one.name} before the first FROM")
            (self.stages[-1].instructions if self.stages else self.arguments).append(one)
            return
        if len(one.words) == 2 or (len(one.words) == 3 and one.words[1].upper() != "AS"):
            raise self.error(one.line, "FROM IMAGE [AS NAME]")
        stage = Stage(one)
        if stage.name and not _STAGE.fullmatch(stage.name):
            raise self.error(one.line, f"{stage.name[:40]!a} cannot be a stage's name")
        if stage.name and stage.name in [other.name for other in self.stages]:
            raise self.error(one.line, f"the stage {stage.name} is there already")
        self.stages.append(stage)

    def split(self, text: str) -> list[str]:
        """Words with their quotes and escapes; blanks that are quoted or escaped part none."""
        words, word, quote, escaped = [], "", "", False
        for char in text:
            if char.isspace() and not quote and not escaped:
                words += [word] if word else []
                word = ""
                continue
            if escaped:
                escaped = False
            elif char == ESCAPE and quote != "'":
                escaped = True
            elif char in ("'", '"') and quote in ("", char):
                quote = "" if quote else char
            word += char
        return [*words, word] if word else words

    def expand(
        self, line: int, text: str, variables: dict[str, str], document: bool = False
    ) -> str:
        """A word without its quotes and escapes, variables replaced; may raise ImageError.

        In a document, as the shell has it, quotes are text.
        """
        try:
            return self._expand(text, 0, "\0" * document, variables)[0]
        except (ValueError, RecursionError) as error:
            what = error if isinstance(error, ValueError) else "nested too deep"
            raise self.error(line, f"{text[:60]!a}: {what}") from None

    def _expand(self, text: str, at: int, stop: str, variables: dict[str, str]) -> tuple[str, int]:
        """From a position up to the character `stop`; returns the text and the position after."""
        found = ""
        quoted = stop in ('"', "\0")
        while at < len(text):
            char = text[at]
            at += 1
            if char == stop:
                return found, at
            if char == ESCAPE:
                if quoted and text[at : at + 1] not in (stop, "$", ESCAPE):
                    found += char
                found += text[at : at + 1]
                at += 1
            elif char == "'" and not quoted:
                end = text.find("'", at)
                if end < 0:
                    raise ValueError("a ' without its end")
                found += text[at:end]
                at = end + 1
            elif char == "$":
                part, at = self._variable(text, at, variables)
                found += part
            elif char == '"' and not quoted:
                part, at = self._expand(text, at, '"', variables)
                found += part
            else:
                found += char
        if stop not in ("", "\0"):
            raise ValueError(f"{stop} is missing")
        return found, at

    def _variable(self, text: str, at: int, variables: dict[str, str]) -> tuple[str, int]:
        """What follows a dollar sign: NAME, {NAME}, {NAME:-word}, {NAME:+word}, {NAME:?word}."""
        braces = text[at : at + 1] == "{"
        name = _VARIABLE.match(text, at + braces)
        if not name:
            if braces:
                raise ValueError("${ without a name")
            return "$", at
        value, at = variables.get(name[0]), name.end()
        if not braces:
            return value or "", at
        colon = text[at : at + 1] == ":"
        at += colon
        how = text[at : at + 1]
        if how == "}" and not colon:
            return value or "", at + 1
        if not how or how not in "-+?":
            raise ValueError(f"${{{name[0]}{':' * colon}{how}…}} is not supported, or has no end")
        word, at = self._expand(text, at + 1, "}", variables)
        is_set = bool(value) if colon else value is not None
        if how == "?" and not is_set:
            raise ValueError(f"{name[0]}: {word or 'not set'}")
        return (word if is_set == (how == "+") else (value or "") * (how != "+")), at
