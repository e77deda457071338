"""Runs the cases against an echo server and writes JUnit XML: `suite.py ws://127.0.0.1:9001 report.xml [NUMBER…]`."""

import sys
import time
import traceback
from xml.etree import ElementTree

from cases import CASES
from peer import Ended, Peer


def run(url: str, number: str) -> str | None:
    """What went wrong, or nothing."""
    _, test = CASES[number]
    peer = None
    try:
        peer = Peer(url)
        test(peer)
    except Ended as ended:
        return f"the server ended the connection too early ({ended})\n{traceback.format_exc()}"
    except (AssertionError, OSError, ValueError):
        return traceback.format_exc()
    finally:
        if peer is not None:
            peer.hang_up()
    return None


def main(url: str, report: str, numbers: list[str]) -> int:
    suite = ElementTree.Element("testsuite", name="rfc6455")
    failures = 0
    for number in numbers or CASES:
        started = time.monotonic()
        problem = run(url, number)
        title = f"{number} {CASES[number][0]}"
        seconds = f"{time.monotonic() - started:.3f}"
        entry = ElementTree.SubElement(suite, "testcase", classname="rfc6455", name=title, time=seconds)
        if problem:
            failures += 1
            ElementTree.SubElement(entry, "failure", message=problem.strip().splitlines()[-1]).text = problem
            print(f"FAILED {title}\n{problem}", file=sys.stderr)
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    ElementTree.ElementTree(suite).write(report, encoding="utf-8", xml_declaration=True)
    print(f"rfc6455: {len(suite)} cases, {failures} failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
