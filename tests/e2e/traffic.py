"""Runs in a Pod: asks Consul for healthy instances as a caller would, sends requests to them, and counts failures.

Prints a line of JSON each second with the counts so far, and the first failures in full. Needs nothing but Python.
"""

import http.client
import json
import random
import sys
import threading
import time
import urllib.request

consul, service = sys.argv[1:]
instances: list[tuple[str, int]] = []


def follow() -> None:
    """Keep the instances up to date by blocking queries, as a load balancer fed by Consul does."""
    index = "0"
    while True:
        url = f"{consul}/v1/health/service/{service}?passing=1&wait=10s&index={index}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                rows = json.load(answer)
                index = answer.headers["X-Consul-Index"]
        except OSError:
            time.sleep(0.2)
            continue
        instances[:] = [(row["Service"]["Address"], row["Service"]["Port"]) for row in rows]


def ask(address: str, port: int) -> str:
    """One request on a connection of its own; "" where it was served, else what went wrong."""
    connection = http.client.HTTPConnection(address, port, timeout=5)
    try:
        connection.request("GET", "/")
        status = connection.getresponse().status
    except OSError as error:
        return f"{address}:{port}: {error!r}"
    finally:
        connection.close()
    return "" if status == http.client.OK else f"{address}:{port}: {status}"


def main() -> None:
    """Send requests for ever."""
    threading.Thread(target=follow, daemon=True).start()
    sent, empty, failures, said = 0, 0, [], time.monotonic()
    while True:
        if not instances:
            empty += bool(sent)
        else:
            sent += 1
            wrong = ask(*random.choice(instances))
            if wrong:
                failures.append(wrong)
        if time.monotonic() - said > 1:
            said = time.monotonic()
            known = {"sent": sent, "empty": empty, "failed": len(failures), "first": failures[:5]}
            sys.stdout.write(json.dumps(known) + "\n")
            sys.stdout.flush()
        time.sleep(0.005)


main()
