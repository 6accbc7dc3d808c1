"""make report EXPERIMENT=x: one self-contained HTML page about a cross-validated experiment, to read offline.

Writes output/<dataset>/report_<experiment>_seed<seed>.html from what make cv (and make tune, where it was run) left.
"""

import sys
from pathlib import Path

import settings as settings_module
from reporting.page import context, render
from tools.errors import command
from tools.files import write_text
from tools.flags import following


@command
def main(argv: list[str] | None = None) -> None:
    settings, flags = settings_module.command_line(argv, __doc__, {})
    from reporting import evidence as evidence_module

    evidence = evidence_module.gather(settings)
    page = render(context(evidence, settings))
    path = Path(settings.OUTPUT, f"report_{settings.EXPERIMENT}_seed{settings.SEED}.html")
    write_text(path, page)
    print(f"{len(evidence.found.table)} images, {len(evidence.folds)} folds, {len(page) / 1e6:.1f} MB -> {path}")
    print(following("inference", flags))


if __name__ == "__main__":
    sys.exit(main())
