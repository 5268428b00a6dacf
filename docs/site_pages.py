"""Pages of the site that are made when it is built: the start from README.md, all settings.

A page of docs/ leads to `configs.py` for every setting; on the site that is the page of them.
"""

import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
HERE = "docs/"
ELSEWHERE = re.compile(r"\[([^\]]*)\]\((?!https?:|#)([^)]+)\)")


def start_page(readme: str) -> str:
    """Turn README.md into the start page: its links into docs/ stay, others become their text.

    Args:
        readme: markdown whose links are relative to the project.
    """

    def relink(match: re.Match[str]) -> str:
        text, target = match.groups()
        if target.startswith(HERE):
            return f"[{text.removeprefix(HERE)}]({target.removeprefix(HERE)})"
        return f"`{text}`"

    return ELSEWHERE.sub(relink, readme)


def all_settings_page() -> str:
    """List every setting of configs.py by group: its default, unit and help."""
    if str(ROOT) not in sys.path:
        sys.path.insert(0, str(ROOT))
    from configs import Config, settings

    default = Config().to_dict()
    lines = [
        "# All settings",
        "",
        "Made from `configs.py`; `python train.py --help` says the same.",
    ]
    group = ""
    rows = settings()
    groups = list(dict.fromkeys(setting.group for setting in rows.values()))
    for name in sorted(rows, key=lambda one: groups.index(rows[one].group)):
        setting = rows[name]
        if setting.group != group:
            group = setting.group
            lines += ["", f"## {group.capitalize()}", "", "| setting | default | what it is |"]
            lines += ["| --- | --- | --- |"]
        unit = f" ({setting.unit})" if setting.unit else ""
        value = str(default[name]).replace("|", "\\|")
        lines.append(f"| `{name}` | `{value}` | {setting.help.replace('|', chr(92) + '|')}{unit} |")
    return "\n".join(lines) + "\n"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead from a link to configs.py to the page of all settings; mkdocs calls this."""
    return re.sub(r"\]\((\.\./)((?:\.\./)*)configs\.py\)", r"](\2all_settings.md)", markdown)


def on_files(files: Any, config: Any) -> Any:
    """Add the two pages to those of the folder; mkdocs calls this."""
    from mkdocs.structure.files import File

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for name, text in {
        "index.md": start_page(readme),
        "all_settings.md": all_settings_page(),
    }.items():
        files.append(File.generated(config, name, content=text))
    return files
