"""Runs Autobahn's fuzzing client and turns its reports into JUnit XML.

`original.py PYTHON2 SITE ws://127.0.0.1:9001 DIRECTORY report.xml`. A case passes as OK, NON-STRICT or
INFORMATIONAL, in its behaviour and in how the connection was closed.
"""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

AGENT = "Tidewire"
ACCEPTED = {"OK", "NON-STRICT", "INFORMATIONAL"}
# Autobahn 0.8.2 has this many without sections 9 (performance), 12 and 13 (compression).
EXPECTED_CASES = 247


def run(python2: str, site: str, url: str, directory: Path) -> dict[str, dict[str, str]]:
    directory.mkdir(parents=True, exist_ok=True)
    spec = directory / "spec.json"
    reports = directory / "reports"
    spec.write_text(json.dumps({
        "outdir": str(reports),
        "servers": [{"agent": AGENT, "url": url}],
        "cases": ["*"],
        "exclude-cases": ["9.*", "12.*", "13.*"],
        "exclude-agent-cases": {},
    }))
    program = Path(__file__).with_name("fuzzingclient.py")
    (reports / "index.json").unlink(missing_ok=True)
    # -S: the modules in SITE, not those that this Python has.
    log = subprocess.run(
        [python2, "-S", str(program), site, str(spec)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    index = reports / "index.json"
    if not index.is_file():
        sys.exit(f"autobahn left no report:\n{log.stdout[-4000:]}")
    results: dict[str, dict[str, str]] = json.loads(index.read_text())[AGENT]
    return results


def main(python2: str, site: str, url: str, directory: str, report: str) -> int:
    results = run(python2, site, url, Path(directory))
    suite = ElementTree.Element("testsuite", name="autobahn", tests=str(len(results)))
    failures = [] if len(results) == EXPECTED_CASES else [f"{len(results)} cases instead of {EXPECTED_CASES}"]
    for number in sorted(results, key=lambda number: [int(part) for part in number.split(".")]):
        result = results[number]
        outcome = f"{result['behavior']}, closed {result['behaviorClose']}"
        entry = ElementTree.SubElement(suite, "testcase", classname="autobahn", name=f"{number} {outcome}")
        if not {result["behavior"], result["behaviorClose"]} <= ACCEPTED:
            ElementTree.SubElement(entry, "failure", message=outcome).text = json.dumps(result)
            failures.append(f"FAILED {number} {outcome}, see {directory}/reports/{result['reportfile']}")
    suite.set("failures", str(len(failures)))
    ElementTree.ElementTree(suite).write(report, encoding="utf-8", xml_declaration=True)
    print(*failures, sep="\n", end="\n" if failures else "", file=sys.stderr)
    print(f"autobahn: {len(results)} cases, {len(failures)} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
