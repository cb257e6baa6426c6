"""The durable spool: what it has acknowledged is on the disk bit for bit, indexed, and decided exactly once.

    spool/node.db                    the index (see `database`)
    spool/lock                       held by the one node that works here
    spool/incoming/<uuid>.part       objects on their way in
    spool/films/<2 hex>/<uuid>.dcm   objects as received (.bin where they are not DICOM)
    spool/quarantine/<uuid>.dcm      objects that a person has to look at
    spool/doubts                     results that are still to be marked as in doubt (see `owed`)

Order of an acknowledgement: write → fsync → rename → fsync of the folder (and of its parent, where the folder is new)
→ commit of the row → return.
"""

import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from edgecxr.durable import sync_folder
from edgecxr.errors import EdgeCxrError, SpoolError, SpoolFull
from edgecxr.runtimes.node.coming import Coming
from edgecxr.runtimes.node.commitments import Commitment, CommitmentRequest, Commitments
from edgecxr.runtimes.node.config import SpoolLimits
from edgecxr.runtimes.node.copies import digest_uid, same_image
from edgecxr.runtimes.node.database import Database
from edgecxr.runtimes.node.deliveries import Deliveries, Delivery, NewDelivery
from edgecxr.runtimes.node.door import Door
from edgecxr.runtimes.node.doubts import Doubts
from edgecxr.runtimes.node.films import Films
from edgecxr.runtimes.node.images import Arrival, Image, Images, Outcome, Receipt, Result, Row, State
from edgecxr.runtimes.node.listing import Selection, listed
from edgecxr.runtimes.node.owed import Owed
from edgecxr.runtimes.node.parts import MEGABYTE, Part, Parts, disk_error, free_bytes
from edgecxr.runtimes.node.recovery import Recovery, lock_exclusively, mend
from edgecxr.runtimes.node.retention import DAY_S, Clock, forget_delivered, redate, set_aside
from edgecxr.runtimes.node.undrawn import Undrawn

__all__ = [
    "Arrival",
    "Commitment",
    "CommitmentRequest",
    "Delivery",
    "Image",
    "NewDelivery",
    "Outcome",
    "Part",
    "Receipt",
    "Recovery",
    "Result",
    "Row",
    "Spool",
    "SpoolLimits",
    "State",
]

logger = logging.getLogger(__name__)


class Spool:
    """The images of one node. Any thread may call anything; several processes may open it, one of them as the node."""

    def __init__(self, folder: Path, limits: SpoolLimits) -> None:
        """Open, or create. Raises SpoolError where it is of a newer version or cannot be used."""
        self.folder = Path(folder)
        self.limits = limits
        self._films = Films(self.folder)
        incoming = self.folder / "incoming"
        new = [place for place in (self.folder, *self.folder.parents) if not place.exists()]
        try:
            for place in (self.folder, incoming, self._films.folder, self._films.quarantine):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._database = Database(self.folder / "node.db")
            for place in (self.folder, *(place.parent for place in new)):
                sync_folder(place)
        except OSError as error:
            raise disk_error(error, f"the spool {self.folder} cannot be used") from error
        self._images = Images(self._database)
        self._deliveries = Deliveries(self._database)
        self._commitments = Commitments(self._database)
        self.doubts = Doubts(self._database, Owed(self.folder / "doubts"))
        self.undrawn = Undrawn(self._database)
        self.door = Door(self._database)  # what was turned away
        self._parts = Parts(incoming, limits.max_object_mb * MEGABYTE, limits.refuse_below_mb * MEGABYTE)
        self.coming = Coming(self._database.nudge)  # what is being committed
        self._lock: int | None = None
        self._clock, self._first = Clock(), self._images.last()

    def recover(self) -> Recovery:
        """Take the spool for this node, and mend what a crash left. Raises SpoolError where another node has it."""
        if self._lock is None:
            self._lock = lock_exclusively(self.folder / "lock")
        self._films.prepare()
        self.doubts.owed.recover()
        return mend(self._database, self._parts.folder, self._films.folder, self._films.quarantine)

    def close(self) -> None:
        """Close the index and give the lock back."""
        self.door.close()
        self._database.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def part(self, step: int | None = None, expected: int = 0) -> Part:
        """A place for the bytes of one object. Raises SpoolFull before any is taken.

        `step` and `expected` bytes: see `Parts.open`.
        """
        waiting = self._images.waiting() + len(self._parts)
        if waiting >= self.limits.max_waiting:
            raise SpoolFull(f"{waiting} images wait for screening, as many as spool.max_waiting allows")
        return self._parts.open(step, expected)

    def commit(self, part: Part, arrival: Arrival) -> Receipt:
        """Make a part an image, durable and indexed. Raises SpoolFull or SpoolError, and then nothing is kept."""
        if not part.open:
            raise SpoolError("this part was committed or discarded already")
        with part:
            if arrival.sop_instance:
                return self._keep(part, arrival, "dcm")
            try:
                named = replace(arrival, sop_instance=digest_uid(part.path))
            except OSError as error:
                raise disk_error(error, "an object could not be read back from the spool") from error
            return self._keep(part, named, "bin")

    def claim(self, only: str = "", but: Sequence[str] = ()) -> Image | None:
        """The image to screen next: highest priority, then longest here. None where none waits.

        `only` the one with a file of this name, or any `but` those.
        """
        return self._images.claim(only, but)

    def finish(self, image: int, outcome: Outcome, deliveries: Sequence[NewDelivery] = ()) -> None:
        """Result, identity, outbox and state in one transaction. Raises SpoolError where it is not in screening."""
        self._images.finish(image, outcome, deliveries)

    def fail(self, image: int, error: str) -> State:
        """Screening failed: back to received, or quarantined after the second attempt. `error` names no patient."""
        state = self._images.fail(image, error)
        if state is State.QUARANTINED:
            self._films.move(self._images.get(image))
        return state

    def release(self, image: int) -> None:
        """Back to received, and the attempt does not count: the engine was at fault, or the node stops."""
        self._images.release(image)

    def retry(self, image: int) -> None:
        """By hand: quarantined, refused or in doubt → received, afresh; its result and deliveries are dropped."""
        if not self.path(self._images.get(image)).exists():
            raise SpoolError(f"the file of image {image} is gone from the spool; it cannot be screened again")
        self._images.retry(image, ready=self._films.move)

    def get(self, image: int) -> Image:
        """Raises SpoolError where there is none."""
        return self._images.get(image)

    def find(self, sop_instance: str) -> list[Image]:
        """Every image with a SOP Instance UID, oldest first."""
        return self._images.find(sop_instance)

    def path(self, image: Image) -> Path:
        """The bytes as received."""
        return self._films.path(image)

    def result(self, image: int) -> Result | None:
        """What was decided; None while nothing is."""
        return self._images.result(image)

    def fetched(self, images: Sequence[int]) -> None:
        """Somebody was given the results of these images; see `expire`. What cannot be noted is kept longer."""
        try:
            self._images.fetched(images)
        except (SpoolError, SpoolFull) as error:
            logger.warning("who fetched a result was not noted", extra={"reason": str(error)})

    def listing(
        self,
        *,
        states: Iterable[State] | None = None,
        finding: str | None = None,
        text: str = "",
        limit: int = 100,
        before: int | None = None,
        order: Literal["urgent", "newest"] = "newest",
    ) -> list[Row]:
        """Images with their results (without the map); the arguments are those of `Selection`."""
        return self.rows(Selection(states, finding, text, limit, before, order))

    def rows(self, selection: Selection) -> list[Row]:
        """Images with their results (without the map) that a selection wants."""
        return listed(self._database, selection)

    def counts(self) -> dict[State, int]:
        """Images by state."""
        return self._images.counts()

    def quarantined(self) -> tuple[int, int]:
        """How many images are in quarantine, and their bytes."""
        return set_aside(self._database)

    def free_bytes(self) -> int:
        """Room on the disk."""
        return free_bytes(self.folder)

    def waiting_s(self) -> float | None:
        """How long the oldest waiting image has waited; None where none does."""
        return self._images.waiting_s()

    def change(self) -> int:
        """A number that grows with every committed change of this process."""
        return self._database.change()

    def wait(self, after: int, timeout_s: float, until: Callable[[], bool] | None = None) -> int:
        """`change()` as soon as it is greater than `after`, when the time is over, or (see `coming`) `until` holds."""
        return self._database.wait(after, timeout_s, until)

    def due(self, now: float, limit: int = 8, destination: str | None = None) -> list[Delivery]:
        """Deliveries that may be tried at `now` (unix s); of one destination where named."""
        return self._deliveries.due(now, limit, destination)

    def deliveries(self, image: int) -> list[tuple[Delivery, float | None]]:
        """Every delivery of an image, and when it arrived (unix s); None where it has not, 0 where given up."""
        return self._deliveries.of(image)

    def stands(self, delivery: Delivery) -> bool:
        """Whether a delivery is still to be sent, and as this object."""
        return self._deliveries.stands(delivery)

    def sent(self, delivery: int, sop_instance: str) -> None:
        """This object has arrived; with the last one its image is delivered. Raises SpoolError as `Deliveries.sent`."""
        self._deliveries.sent(delivery, sop_instance)

    def postpone(self, delivery: int, error: str, until: float) -> None:
        """A delivery failed; it is due again at `until` (unix s)."""
        self._deliveries.postpone(delivery, error, until)

    def outstanding(self) -> int:
        """Deliveries that have not arrived."""
        return self._deliveries.outstanding()

    def waiting(self) -> dict[str, int]:
        """Deliveries that have not arrived, by the name of their destination."""
        return self._deliveries.waiting()

    def give_up(self, destination: str) -> list[tuple[int, int]]:
        """By hand: send nothing of what waits for a destination; images, and how many objects of each."""
        return self._deliveries.give_up(destination)

    def ask(self, request: CommitmentRequest) -> int:
        """Keep a storage commitment request, durably; its id. Raises SpoolFull as `part` does, SpoolError."""
        self._parts.check()
        return self._commitments.ask(request)

    def asked_due(self, now: float, limit: int = 8, without: Sequence[str] = ()) -> list[Commitment]:
        """Commitment requests that may be answered at `now` (unix s), but those of the AE titles `without`."""
        return self._commitments.due(now, limit, without)

    def answered(self, commitment: int) -> None:
        """The answer has arrived at the peer."""
        self._commitments.answered(commitment)

    def postpone_answer(self, commitment: int, error: str, until: float) -> None:
        """The answer did not arrive; it is due again at `until` (unix s)."""
        self._commitments.postpone(commitment, error, until)

    def is_durable(self, sop_class: str, sop_instance: str) -> bool:
        """Whether an instance of this class is indexed and its bytes are here."""
        return any(image.sop_class == sop_class and self.path(image).exists() for image in self.find(sop_instance))

    def expire(self, now: float) -> int:
        """Forget delivered images older than keep_days, and the oldest while less than tidy_below_mb is free.

        For want of room only those whose result somebody has: a destination, or who `fetched` it.
        """
        redate(self._database, self._first, self._clock.set_by_s(), time.time())
        room = self.limits.tidy_below_mb * MEGABYTE - self.free_bytes()
        names = forget_delivered(self._database, now - self.limits.keep_days * DAY_S, room)
        for name in names:
            self._films.place(name).unlink(missing_ok=True)
        return len(names)

    def _keep(self, part: Part, arrival: Arrival, suffix: str) -> Receipt:
        name = f"{part.path.stem}.{suffix}"
        place = self._films.place(name)
        known, twin = self._known(part.path, arrival)
        if twin is not None:
            return Receipt(twin.id, "same")
        with self.coming.film(name, part.path, place):
            part.seal()
            self._films.keep(part.path, place)
            return self._index(place, arrival, part.size, known)

    def _index(self, place: Path, arrival: Arrival, size: int, known: list[Image]) -> Receipt:
        """A row for a file that is durable in its place, where its UID's rows are still the `known` ones."""
        while True:
            try:
                image = self._images.insert(arrival, place.name, size, [image.id for image in known])
            except EdgeCxrError:
                place.unlink(missing_ok=True)
                raise
            if image is not None:
                return Receipt(image, "other" if known else "new")
            known, twin = self._known(place, arrival)
            if twin is not None:
                place.unlink(missing_ok=True)
                return Receipt(twin.id, "same")

    def _known(self, path: Path, arrival: Arrival) -> tuple[list[Image], Image | None]:
        """The images of the UID, and the one of them that is the same image, and was not forgotten meanwhile."""
        known = self._images.find(arrival.sop_instance)
        while (twin := next((image for image in known if self._same(path, arrival, image)), None)) is not None:
            known = self._images.find(arrival.sop_instance)
            if twin.id in [image.id for image in known]:
                break
        return known, twin

    def _same(self, path: Path, arrival: Arrival, image: Image) -> bool:
        """Whether an arrival is a copy of an image, whoever sent it."""
        return same_image(path, self.path(image), from_data_set=bool(arrival.syntax) and arrival.syntax == image.syntax)
