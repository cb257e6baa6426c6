"""PDUs against pynetdicom's own classes, which are the oracle, and against noise."""

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pynetdicom import pdu as oracle
from pynetdicom.pdu_primitives import (
    A_ASSOCIATE,
    ImplementationClassUIDNotification,
    ImplementationVersionNameNotification,
    MaximumLengthNotification,
    SCP_SCU_RoleSelectionNegotiation,
    UserIdentityNegotiation,
)
from pynetdicom.presentation import PresentationContext

from edgecxr.runtimes.node import pdu

titles = st.text("ABCXYZ019 _-", min_size=1, max_size=16).map(str.strip).filter(bool)
uids = st.lists(st.integers(0, 99999), min_size=2, max_size=9).map(lambda parts: ".".join(map(str, ["1", *parts])))
proposals = st.lists(st.tuples(uids, st.lists(uids, min_size=1, max_size=4, unique=True)), min_size=1, max_size=6)


def a_request(calling: str, called: str, contexts: list[tuple[str, list[str]]], max_pdu: int) -> A_ASSOCIATE:
    primitive = A_ASSOCIATE()
    primitive.application_context_name = "1.2.840.10008.3.1.1.1"
    primitive.calling_ae_title, primitive.called_ae_title = calling, called
    proposed = []
    for number, (abstract, transfers) in enumerate(contexts):
        context = PresentationContext()
        context.context_id, context.abstract_syntax, context.transfer_syntax = 2 * number + 1, abstract, transfers
        proposed.append(context)
    primitive.presentation_context_definition_list = proposed
    length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
    length.maximum_length_received = max_pdu
    implementation.implementation_class_uid = "1.2.3.4"
    version = ImplementationVersionNameNotification()
    version.implementation_version_name = "ORACLE"
    primitive.user_information = [length, implementation, version]
    return primitive


def encoded(primitive: A_ASSOCIATE) -> bytes:
    request = oracle.A_ASSOCIATE_RQ()
    request.from_primitive(primitive)
    return bytes(request.encode())


@settings(max_examples=60, deadline=None)
@given(titles, titles, proposals, st.integers(0, 2**32 - 1))
def test_a_request_is_read_as_pynetdicom_wrote_it(
    calling: str, called: str, contexts: list[tuple[str, list[str]]], max_pdu: int
) -> None:
    data = encoded(a_request(calling, called, contexts, max_pdu))
    kind, length = pdu.HEADER.unpack(data[:6])
    assert (kind, length) == (pdu.PduType.ASSOCIATE_RQ, len(data) - 6)
    request = pdu.decode_associate(data[6:])
    assert (request.calling, request.called, request.max_pdu, request.version) == (calling, called, max_pdu, 1)
    assert request.application == pdu.APPLICATION_CONTEXT
    assert (request.implementation_uid, request.implementation_version) == ("1.2.3.4", "ORACLE")
    assert [(c.number, c.abstract, list(c.transfers)) for c in request.contexts] == [
        (2 * number + 1, abstract, transfers) for number, (abstract, transfers) in enumerate(contexts)
    ]


def test_roles_are_read_and_a_user_identity_is_passed_over() -> None:
    primitive = a_request("A", "B", [("1.2.3", ["1.2.840.10008.1.2"])], 0)
    role, identity = SCP_SCU_RoleSelectionNegotiation(), UserIdentityNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = "1.2.3", False, True
    identity.user_identity_type, identity.primary_field, identity.secondary_field = 2, b"user", b"password"
    primitive.user_information = [*primitive.user_information, role, identity]
    assert pdu.decode_associate(encoded(primitive)[6:]).roles == {"1.2.3": (False, True)}


@settings(max_examples=40, deadline=None)
@given(titles, proposals, st.lists(st.sampled_from(list(pdu.Verdict)), min_size=6, max_size=6), st.integers(1, 2**24))
def test_pynetdicom_reads_an_acceptance_as_it_was_meant(
    title: str, contexts: list[tuple[str, list[str]]], verdicts: list[pdu.Verdict], max_pdu: int
) -> None:
    primitive = a_request(title, "EDGECXR", contexts, 0)
    role = SCP_SCU_RoleSelectionNegotiation()
    role.sop_class_uid, role.scu_role, role.scp_role = contexts[0][0], True, True
    primitive.user_information = [*primitive.user_information, role]
    request = pdu.decode_associate(encoded(primitive)[6:])
    answers = [pdu.Answer(c.number, v, c.transfers[-1]) for c, v in zip(request.contexts, verdicts, strict=False)]
    accepted = oracle.A_ASSOCIATE_AC()
    accepted.decode(pdu.encode_accept(request, answers, max_pdu))
    read = accepted.to_primitive()
    assert read.calling_ae_title == title
    assert [c.context_id for c in read.presentation_context_definition_results_list] == [a.number for a in answers]
    assert [c.result for c in read.presentation_context_definition_results_list] == [a.verdict for a in answers]
    for answer, context in zip(answers, read.presentation_context_definition_results_list, strict=True):
        assert answer.verdict or context.transfer_syntax == [answer.transfer]
    assert read.maximum_length_received == max_pdu
    assert read.implementation_class_uid == pdu.IMPLEMENTATION_UID
    roles = [item for item in read.user_information if isinstance(item, SCP_SCU_RoleSelectionNegotiation)]
    kept = {c.abstract for c, a in zip(request.contexts, answers, strict=True) if not a.verdict}
    assert [(r.sop_class_uid, r.scu_role, r.scp_role) for r in roles] == [
        (name, True, False) for name in [contexts[0][0]] if name in kept
    ]


@pytest.mark.parametrize("rejection", list(pdu.Rejection))
def test_pynetdicom_reads_every_rejection(rejection: pdu.Rejection) -> None:
    read = oracle.A_ASSOCIATE_RJ()
    read.decode(pdu.encode_reject(rejection))
    assert (read.result, read.source, read.reason_diagnostic) == rejection.value
    assert read.reason_str


@pytest.mark.parametrize("reason", [None, *pdu.AbortReason])
def test_pynetdicom_reads_every_abort(reason: pdu.AbortReason | None) -> None:
    read = oracle.A_ABORT_RQ()
    read.decode(pdu.encode_abort(reason))
    assert (read.source, read.reason_diagnostic) == ((0, 0) if reason is None else (2, reason))


def test_pynetdicom_reads_the_answer_to_a_release() -> None:
    read = oracle.A_RELEASE_RP()
    read.decode(pdu.encode_release_reply())
    assert len(read) == 10


@settings(max_examples=60, deadline=None)
@given(st.binary(min_size=1, max_size=400).filter(lambda data: len(data) % 2 == 0), st.integers(8, 300), st.booleans())
def test_pynetdicom_puts_fragments_together(message: bytes, max_pdu: int, command: bool) -> None:
    data, whole, last = pdu.encode_data(5, message, max_pdu, command=command), b"", False
    while data:
        length = pdu.HEADER.unpack(data[:6])[1]
        assert length <= max_pdu
        read = oracle.P_DATA_TF()
        read.decode(data[: 6 + length])
        data = data[6 + length :]
        for value in read.presentation_data_value_items:
            header = value.presentation_data_value[0]
            assert (value.presentation_context_id, header & 1) == (5, command)
            assert not last
            whole, last = whole + value.presentation_data_value[1:], bool(header & 2)
    assert whole == message
    assert last


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_noise_is_refused_or_read_and_nothing_else(body: bytes) -> None:
    for data in (body, bytes(68) + body):
        with contextlib.suppress(pdu.PduError):
            pdu.decode_associate(data)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_a_damaged_request_is_refused_or_read_and_nothing_else(data: st.DataObject) -> None:
    whole = bytearray(encoded(a_request("A", "B", [("1.2.3", ["1.2.4", "1.2.5"]), ("1.2.6", ["1.2.4"])], 0))[6:])
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        request = pdu.decode_associate(bytes(whole[: data.draw(st.integers(0, len(whole)))]))
    except pdu.PduError:
        return
    assert all(text.isprintable() for text in (request.calling, request.called, request.application))


@pytest.mark.parametrize(
    ("body", "match"),
    [
        (b"\0\1", "of 2 bytes; it has at least 68"),
        (bytes(68) + b"\x10\0", "2 bytes are left where an item"),
        (bytes(68) + b"\x10\0\xff\xff1.2", "declares 65535 bytes; 3 are left"),
        (bytes(68) + b"\x20\0\0\2\1\0", "context of 2 bytes"),
        (bytes(68) + b"\x20\0\0\4\1\0\0\0" * 2, "same number"),
        (bytes(68) + b"\x50\0\0\6\x51\0\0\2\0\0", "maximum length of 2 bytes"),
        (bytes(68) + b"\x50\0\0\7\x54\0\0\3\0\x09\0", "whose UID takes 9"),
    ],
)
def test_what_is_wrong_is_said(body: bytes, match: str) -> None:
    with pytest.raises(pdu.PduError, match=match):
        pdu.decode_associate(body)


def test_a_title_cannot_forge_a_line_of_the_log() -> None:
    body = bytes((0, 1, 0, 0)) + b"EDGECXR\0\0\0\0\0\0\0\0\0" + b"A\nERROR: \x1b[31mB\xff" + bytes(32)
    request = pdu.decode_associate(body.ljust(68, b"\0"))
    assert request.calling == "A?ERROR: ?[31mB?"[:16]
    assert request.called == "EDGECXR"
