"""What a crash leaves of a spool: an experiment, and the equation that has to hold after it.

    python crash.py kill FOLDER CRASHES SEED [BREAKAGE]     the process is killed (SIGKILL) at random moments
    python crash.py cut FOLDER CRASHES SEED [BREAKAGE]      the power fails at random moments (needs root, loop devices)

A child receives images into the spool, screens and delivers them, and says on a pipe what it has acknowledged, decided
and delivered. What was said before the crash must be so after it:

    acknowledged == in the index == on the disk bit for bit == decided exactly once, when all is screened

For a power cut the disk is copied as it is at one instant (see disks.py), mounted and opened.

Prints one JSON object: crashes, acknowledged, decided, and lists of what was lost. A BREAKAGE takes one link out of the
chain, to see that the experiment notices. It is a program of its own because it forks, which wants one thread.
"""

import fcntl
import itertools
import json
import os
import random
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from breakages import take_out
from disks import disks, mounted, snapshot

from edgecxr.runtimes.node.spool import Arrival, CommitmentRequest, NewDelivery, Outcome, Spool, SpoolLimits, State

LIMITS = SpoolLimits(max_object_mb=1, refuse_below_mb=0, tidy_below_mb=0, max_waiting=100_000)
SYNTAX = "1.2.840.10008.1.2.1"
CRASHED = "crashed twice while being screened"


@dataclass
class Said:
    """What a spool has said before it crashed."""

    acknowledged: dict[int, tuple[str, int]] = field(default_factory=dict)  # image → UID, variant of the bytes
    decided: dict[int, str] = field(default_factory=dict)  # image → nonce of the decision
    sent: set[int] = field(default_factory=set)  # deliveries

    def hear(self, lines: list[str]) -> None:
        for line in lines:
            word, *rest = line.split()
            if word == "acknowledged":
                self.acknowledged[int(rest[0])] = (rest[1], int(rest[2]))
            elif word == "decided":
                self.decided[int(rest[0])] = rest[1]
            elif word == "sent":
                self.sent.add(int(rest[0]))


def payload(uid: str, variant: int) -> bytes:
    """The bytes of an image: 2 to 100 KB, another for every UID and variant."""
    chance = random.Random(f"{uid}/{variant}")
    return chance.randbytes(chance.randrange(2_000, 100_000))


# The child -----------------------------------------------------------------------------------------------------------


def work(folder: Path, say: Callable[[str], None], life: int, images: int) -> None:
    """Receive `images` images and screen them at the same time, until killed or done."""
    spool = Spool(folder, LIMITS)
    spool.recover()
    lengthen_log(spool)
    receiver = threading.Thread(target=receive, args=(spool, say, life, images), daemon=True)
    receiver.start()
    screen(spool, say, random.Random(life), receiver)
    spool.close()


def lengthen_log(spool: Spool) -> None:
    """Fill SQLite's log once, as in a node that has run for an hour: from then on it is overwritten.

    While the log grows, its fsync makes the file system commit its journal, and with it every rename before: that
    would hide a missing fsync of the folder.
    """
    for number in range(5):
        spool.ask(CommitmentRequest(str(number), "", "", (("", "9" * 1_000_000),)))


def receive(spool: Spool, say: Callable[[str], None], life: int, images: int) -> None:
    for index in range(images):
        uid, variant = f"1.2.{life}.{index}", 0
        if index % 7 == 6:  # the modality sends it again
            uid = f"1.2.{life}.{index - 3}"
        elif index % 11 == 10:  # the UID of another image
            uid, variant = f"1.2.{life}.{index - 2}", 1
        data = memoryview(payload(uid, variant))
        with spool.part() as part:
            for start in range(0, len(data), 1 << 16):
                part.write(data[start : start + (1 << 16)])
            receipt = spool.commit(part, Arrival("1.2.840.10008.5.1.4.1.1.1.1", uid, SYNTAX, "dicom"))
        say(f"acknowledged {receipt.image} {uid} {variant}")


def screen(spool: Spool, say: Callable[[str], None], chance: random.Random, receiver: threading.Thread) -> None:
    while True:
        seen, more = spool.change(), receiver.is_alive()
        image = spool.claim()
        if image is None and not more:
            return
        if image is None:
            spool.wait(seen, 0.02)
            continue
        if chance.random() < 0.05:
            spool.release(image.id)
            continue
        decide(spool, image.id, say)
        for delivery in spool.due(time.time(), limit=1 + chance.randrange(3)):
            spool.sent(delivery.id, delivery.sop_instance)
            say(f"sent {delivery.id}")


def decide(spool: Spool, image: int, say: Callable[[str], None]) -> None:
    nonce = os.urandom(8).hex()
    deliveries = [NewDelivery("pacs", "sr", f"2.25.{image}")] if image % 3 else []
    spool.finish(image, Outcome("ok", {"nonce": nonce}, identity={"patient_id": nonce}), deliveries)
    say(f"decided {image} {nonce}")


@contextmanager
def child(folder: Path, life: int, images: int, breakage: str) -> Iterator[tuple[int, Callable[[], list[str]]]]:
    """A process that works on the spool, and what it has said since it was last asked. It is killed at the end."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 1 << 20)
    process = os.fork()
    if process == 0:
        status = 1
        try:
            os.close(reader)
            take_out(breakage)
            work(folder, lambda line: (os.write(writer, f"{line}\n".encode()), None)[1], life, images)
            status = 0
        finally:
            os._exit(status)
    os.close(writer)
    rest = b""

    def heard() -> list[str]:
        nonlocal rest
        while select.select([reader], [], [], 0)[0] and (data := os.read(reader, 1 << 20)):
            rest += data
        *lines, rest = rest.split(b"\n")
        return [line.decode() for line in lines]

    try:
        yield process, heard
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reader)


# The equation --------------------------------------------------------------------------------------------------------


def wrong(spool: Spool, said: Said) -> list[str]:
    """What was said and is not so, in a spool that has been recovered."""
    found = []
    for number, (uid, variant) in said.acknowledged.items():
        images = [image for image in spool.find(uid) if image.id == number]
        if not images:
            found.append(f"image {number} was acknowledged and is not in the index")
        elif not spool.path(images[0]).exists():
            found.append(f"image {number} was acknowledged and has no file")
        elif spool.path(images[0]).read_bytes() != payload(uid, variant):
            found.append(f"image {number} was acknowledged and its bytes are others")
    for number, nonce in said.decided.items():
        result = spool.result(number)
        if result is None or result.record["nonce"] != nonce or spool.get(number).patient_id != nonce:
            found.append(f"image {number} was decided, and the decision is gone or another")
    open_now = {delivery.id for delivery in spool.due(time.time() + 1, limit=100_000)}
    found += [f"delivery {number} was sent and is outstanding" for number in said.sent & open_now]
    return found


def wrong_at_the_end(spool: Spool, said: Said) -> list[str]:
    """Screen what waits; then every image has one decision, and no image is there twice."""
    for image, _ in spool.listing(states=[State.QUARANTINED], limit=100_000):
        if image.error == CRASHED:
            spool.retry(image.id)
    while (image := spool.claim()) is not None:
        decide(spool, image.id, lambda line: None)
    found = wrong(spool, said)
    rows = spool.listing(limit=100_000)
    found += [f"image {image.id} is {image.state.value} without a result" for image, result in rows if result is None]
    contents = [(image.sop_instance, spool.path(image).read_bytes()) for image, _ in rows if spool.path(image).exists()]
    if len(set(contents)) != len(contents):
        found.append(f"{len(contents) - len(set(contents))} images are there twice")
    files = {path.name for path in spool.folder.glob("films/*/*")} | {
        path.name for path in spool.folder.glob("quarantine/*")
    }
    if files != {image.file for image, _ in rows}:
        found.append("files and rows are not the same")
    return found


# The crashes ---------------------------------------------------------------------------------------------------------


def kill(folder: Path, crashes: int, chance: random.Random, breakage: str) -> dict[str, Any]:
    """Kill the process again and again, on one spool."""
    said, found, mended = Said(), [], 0
    for life in range(crashes):
        now = Said()
        with child(folder / "spool", life, 10_000, breakage) as (process, heard):
            wait_for(life % 2, now, heard)  # every other one is killed at work, the rest also before it
            time.sleep(chance.uniform(0, 0.06))
            os.kill(process, signal.SIGKILL)
            os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
            now.hear(heard())
        spool = Spool(folder / "spool", LIMITS)
        recovery = spool.recover()
        mended += recovery.parts + recovery.orphans + recovery.requeued + recovery.quarantined
        found += [f"crash {life}: {one}" for one in wrong(spool, now)]
        spool.close()
        for mine, new in zip(vars(said).values(), vars(now).values(), strict=True):
            mine.update(new)
    spool = Spool(folder / "spool", LIMITS)
    found += wrong_at_the_end(spool, said)
    spool.close()
    return report(crashes, said, found, mended)


def cut(folder: Path, crashes: int, chance: random.Random, breakage: str) -> dict[str, Any]:
    """Cut the power again and again, of disks that are filled one after the other."""
    total, found, mended, done = Said(), [], 0, 0
    for life in itertools.count():
        with disks(folder) as (outer, inner), child(inner / "spool", life, 130, breakage) as (process, heard):
            said = Said()
            wait_for(1, said, heard)
            while done < crashes and len(said.acknowledged) < 90:
                wait_for(len(said.acknowledged) + 3 * (done % 2), said, heard)
                time.sleep(chance.uniform(0, 0.03))
                said.hear(heard())
                snapshot(outer, folder / "cut.img")
                os.kill(process, signal.SIGSTOP)
                with mounted(folder / "cut.img", folder / "after") as after:
                    spool = Spool(after / "spool", LIMITS)
                    recovery = spool.recover()
                    mended += recovery.parts + recovery.orphans + recovery.requeued + recovery.quarantined
                    found += [f"cut {done}: {one}" for one in wrong(spool, said) + wrong_at_the_end(spool, said)]
                    spool.close()
                done += 1
                os.kill(process, signal.SIGCONT)
            for (uid, variant), number in ((value, key) for key, value in said.acknowledged.items()):
                total.acknowledged[life * 1000 + number] = (uid, variant)
            total.decided.update({life * 1000 + number: nonce for number, nonce in said.decided.items()})
        if done == crashes:
            return report(done, total, found, mended)
    raise AssertionError("not reached")


def wait_for(number: int, said: Said, heard: Callable[[], list[str]]) -> None:
    """Listen until so many images have been acknowledged."""
    for _ in range(60_000):
        said.hear(heard())
        if len(said.acknowledged) >= number:
            return
        time.sleep(0.001)
    raise SystemExit("the child has acknowledged nothing for a minute")


def report(crashes: int, said: Said, found: list[str], mended: int) -> dict[str, Any]:
    return {
        "crashes": crashes,
        "acknowledged": len(said.acknowledged),
        "decided": len(said.decided),
        "mended": mended,
        "wrong": found,
    }


def main(kind: str, folder: str, crashes: str, seed: str, breakage: str = "") -> None:
    experiment = {"kill": kill, "cut": cut}[kind]
    print(json.dumps(experiment(Path(folder), int(crashes), random.Random(int(seed)), breakage)))


if __name__ == "__main__":
    main(*sys.argv[1:])
