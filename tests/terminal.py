"""A terminal as a person has it: a pseudo-terminal of a given width, and the screen that its bytes leave."""

import fcntl
import os
import re
import struct
import subprocess
import termios
import threading
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
REDRAWN = "\r\x1b[2K"  # how Rich begins to erase what it has drawn
TOKEN = re.compile(r"\x1b\[(\??)([\d;]*)([A-Za-z])|.", re.DOTALL)


class Terminal:
    """A pseudo-terminal: what a program writes to `slave` is read as it comes, as a terminal does."""

    def __init__(self, columns: int) -> None:
        self._master, self.slave = os.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        self._content = b""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        try:
            while block := os.read(self._master, 1 << 16):
                self._content += block
        except OSError:  # Linux says so that the slave is closed
            pass

    def shows(self) -> str:
        """What was written so far."""
        return self._content.decode(errors="ignore")

    def press(self, keys: str) -> None:
        """Type on the keyboard."""
        os.write(self._master, keys.encode())

    def text(self) -> str:
        """All that was written, once every program has closed its end."""
        self._reader.join()
        os.close(self._master)
        return self._content.decode()


def start(
    command: Sequence[str], columns: int, folder: Path = ROOT, **environment: str
) -> tuple["subprocess.Popen[bytes]", Terminal]:
    """Start a command in a folder, in a session of its own whose terminal it has as stdin, stdout and stderr.

    Not with COLUMNS and LINES, which tests in a process of pytest-xdist have from GNU readline: of another terminal.
    """
    terminal = Terminal(columns)
    slave = terminal.slave
    inherited = {name: value for name, value in os.environ.items() if name not in {"COLUMNS", "LINES"}}
    process = subprocess.Popen(
        command,
        stdin=slave,
        stdout=slave,
        stderr=slave,
        cwd=folder,
        env={**inherited, "TERM": "xterm", **environment},
        start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # so Ctrl-C reaches its processes
    )
    os.close(slave)
    return process, terminal


def run(command: Sequence[str], columns: int, folder: Path = ROOT, **environment: str) -> tuple[int, str]:
    """Run a command as `start` does; its exit code and all that it has written."""
    process, terminal = start(command, columns, folder, **environment)
    return process.wait(), terminal.text()


def while_at_work(text: str, shown: str) -> str:
    """What was written until the picture that last matches the pattern `shown` was whole, before it was redrawn."""
    *_, last = re.finditer(shown, text)
    return text[: text.index(REDRAWN, last.end())]


def screen(text: str, columns: int) -> list[str]:
    """The lines that stand on a terminal, those that have left its top first; a line that it has folded is one.

    Knows what the display uses, and fails on anything else: a test must not see less than a person.
    """
    rows, folded, row, column = [""], set(), 0, 0
    for match in TOKEN.finditer(text):
        token, private, number, letter = match.group(0, 1, 2, 3)
        if letter == "A":
            row = max(0, row - int(number or 1))
        elif letter == "K" and number == "2":
            rows[row] = ""
            folded.discard(row)
        elif letter:
            assert letter == "m" or (private and letter in "hl" and number == "25"), repr(token)
        elif token == "\r":
            column = 0
        elif token == "\n":
            row += 1
        else:
            assert token.isprintable(), repr(token)
            if column == columns:
                row, column = row + 1, 0
                folded.add(row)
            rows += [""] * (row + 1 - len(rows))
            rows[row] = rows[row].ljust(column)[:column] + token + rows[row][column + 1 :]
            column += 1
        rows += [""] * (row + 1 - len(rows))
    lines: list[str] = []
    for number, line in enumerate(rows):
        if number in folded:
            lines[-1] += line
        else:
            lines.append(line)
    return [line.rstrip() for line in lines if line.strip()]
