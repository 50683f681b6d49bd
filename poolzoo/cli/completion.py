"""`poolzoo completion`: the script for a shell, and the answers that the script asks for at each press of Tab.

The shell sends its line up to the cursor. The answer has a line for each word that may stand there, and a tab before
its description. Click finds the parameter that the word belongs to; `values` finds the words.
"""

from __future__ import annotations

import os
import re
from typing import Any, Final

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from poolzoo.cli.groups import GroupedCommand
from poolzoo.common import output, streams
from poolzoo.common.errors import OK, is_debugging
from poolzoo.common.text import one_line

LINE: Final = "_POOLZOO_LINE"
WORD_BREAKS: Final = "_POOLZOO_WORD_BREAKS"  # characters at which bash ends a word, such as `:`
LONGEST_HELP: Final = 80

_BASH: Final = r"""# To install: poolzoo completion bash > ~/.poolzoo.bash && echo 'source ~/.poolzoo.bash' >> ~/.bashrc
_poolzoo_completion() {
    mapfile -t COMPREPLY < <(
        _POOLZOO_COMPLETE=bash _POOLZOO_LINE="${COMP_LINE:0:COMP_POINT}" _POOLZOO_WORD_BREAKS="$COMP_WORDBREAKS" \
            "$1" 2>/dev/null
    )
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[/:=,] ]]; then
        compopt -o nospace
    fi
}
complete -o nosort -F _poolzoo_completion poolzoo
"""
_ZSH: Final = r"""#compdef poolzoo
# To install: poolzoo completion zsh > ~/.poolzoo.zsh && echo 'source ~/.poolzoo.zsh' >> ~/.zshrc
_poolzoo_completion() {
    local -a answer values shown open_values open_shown
    local line value help
    answer=("${(@f)$(_POOLZOO_COMPLETE=zsh _POOLZOO_LINE="${(j: :)words[1,CURRENT]}" ${(Q)words[1]} 2>/dev/null)}")
    for line in $answer; do
        value="${line%%$'\t'*}"
        help="${line#*$'\t'}"
        [[ -z $value ]] && continue
        [[ -n $help && $help != $line ]] && help="$value -- $help" || help="$value"
        if [[ $value == *[/:=,] ]]; then
            open_values+=("$value"); open_shown+=("$help")
        else
            values+=("$value"); shown+=("$help")
        fi
    done
    (( $#values )) && compadd -l -V poolzoo -d shown -a values
    (( $#open_values )) && compadd -l -V poolzoo-open -S '' -d open_shown -a open_values
}
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    _poolzoo_completion "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit -i }
    compdef _poolzoo_completion poolzoo
fi
"""
_FISH: Final = r"""# To install: poolzoo completion fish > ~/.config/fish/completions/poolzoo.fish
function _poolzoo_completion
    set -lx _POOLZOO_COMPLETE fish
    set -lx _POOLZOO_LINE (commandline -cp | string collect)
    set -l words (commandline -op)
    $words[1] 2>/dev/null
end
complete --no-files --keep-order --command poolzoo --arguments "(_poolzoo_completion)"
"""
SCRIPTS: Final = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}

EXAMPLES: Final = (
    (
        "Complete in bash, from the next shell on",
        "poolzoo completion bash > ~/.poolzoo.bash && echo 'source ~/.poolzoo.bash' >> ~/.bashrc",
    ),
    ("Complete in zsh", "poolzoo completion zsh > ~/.poolzoo.zsh && echo 'source ~/.poolzoo.zsh' >> ~/.zshrc"),
    ("Make the folder for fish, where it is missing", "mkdir -p ~/.config/fish/completions"),
    ("Complete in fish", "poolzoo completion fish > ~/.config/fish/completions/poolzoo.fish"),
)


@click.command(cls=GroupedCommand, examples=EXAMPLES)
@click.argument("shell", type=click.Choice(list(SCRIPTS)))
def command(shell: str) -> None:
    """Print the script that lets a shell complete commands, options and their values.

    Values are names of poolings and their options, backbones, data sets and paths behind folder:, runs, bundles,
    runtimes and plugins. Completion loads the plugins that `poolzoo list` loads, and no torch.
    """
    output.page(SCRIPTS[shell].rstrip("\n"))


class Completer(ShellComplete):
    """Answers a shell: which words may stand where the cursor is."""

    name = "poolzoo"
    source_template = ""

    def __init__(self, cli: click.Command, shell: str, line: str, word_breaks: str) -> None:
        super().__init__(cli, {}, "poolzoo", "")
        self.shell = shell
        self.line = line
        self.word_breaks = word_breaks

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(self.line)
        ended = not words or (self.line[-1:].isspace() and not self.line.endswith("\\ ") and not self._quote())
        incomplete = "" if ended else words.pop()
        return words[1:], incomplete

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        found = super().get_completions(args, incomplete)
        option, equals, _ = incomplete.partition("=")
        if not (equals and option.startswith("--")):
            return found
        return [CompletionItem(f"{option}={one.value}", help=one.help) for one in found]

    def format_completion(self, item: CompletionItem[Any]) -> str:
        value = str(item.value)
        if not value.isprintable():
            return ""
        if self.shell == "bash":
            return self._for_bash(value)
        help = one_line((item.help or "").partition(". ")[0], LONGEST_HELP)
        return f"{value}\t{help}" if help else value

    def _quote(self) -> str:
        """The quote that the word at the cursor began with and that is still open; "" without one."""
        plain = re.sub(r"\\.|'[^']*'|\"(?:\\.|[^\"\\])*\"", "", self.line)
        return next((character for character in plain if character in "'\""), "")

    def _for_bash(self, value: str) -> str:
        """What bash puts in place of its own last word, which begins behind a character that breaks words."""
        if self._quote():
            return value
        quoted = re.sub(r"([^\w@%+=:,./~-])", r"\\\1", value)
        word = re.split(r"(?<!\\)\s", self.line)[-1]
        breaks = [at for at, character in enumerate(word) if character in self.word_breaks and character in ":="]
        return quoted[breaks[-1] + 1 :] if breaks else quoted

    def complete(self) -> str:
        """The lines of the answer, each once."""
        args, incomplete = self.get_completion_args()
        lines = (self.format_completion(one) for one in self.get_completions(args, incomplete))
        return "\n".join(dict.fromkeys(line for line in lines if line))


def answer(cli: click.Command, shell: str) -> int:
    """Answers the shell that asks; a word that nobody knows has no completion, and no message."""
    with streams.owned():
        try:
            found = Completer(cli, shell, os.environ.get(LINE, ""), os.environ.get(WORD_BREAKS, ":=")).complete()
        except Exception:  # an error would be printed into the line that somebody types
            if is_debugging():
                raise
            return OK
        if found:
            output.page(found)
    return OK
