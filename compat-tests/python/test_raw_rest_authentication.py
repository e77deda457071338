"""Section 9.9: authentication of the HTTP API, request by request."""

import time
from collections.abc import Callable

import pytest

from support.raw_http import Reply
from support.rest import Rest
from support.signing import auth_pairs, hmac_hex, joined, md5_hex, sign
from support.target import Target
from support.wire import Wire

OpenWire = Callable[..., Wire]
Name = Callable[[str], str]

VECTOR_BODY = b'{"name":"order.paid","data":"{\\"id\\":7}","channels":["shop-1"]}'


def channels_path(target: Target) -> str:
    return f"/apps/{target.app_id}/channels"


def get(rest: Rest, pairs: list[tuple[str, str]], path: str | None = None) -> Reply:
    """Sends these parameters in this order; the signature is whatever the caller put among them."""
    return rest.unsigned("GET", f"{path or channels_path(rest.target)}?{joined(pairs)}")


def signed(rest: Rest, pairs: list[tuple[str, str]], path: str | None = None) -> list[tuple[str, str]]:
    path = path or channels_path(rest.target)
    return [*pairs, ("auth_signature", sign(rest.target.secret, "GET", path, pairs))]


def test_s136_the_vector_of_the_specification_has_this_signature() -> None:
    """Appendix A1 checks the signer that every other test here relies on."""
    pairs = [
        ("auth_key", "tw-demo-key"), ("auth_timestamp", "1700000000"), ("auth_version", "1.0"),
        ("body_md5", md5_hex(VECTOR_BODY)),
    ]
    expected = "372846fcef1f21fe14c4832fc7d751dee130b3642bd26ccca9ddd54178cd7195"
    assert sign("tw-demo-secret", "POST", "/apps/42/events", pairs) == expected


def test_s136_the_vector_signed_now_is_accepted_and_as_printed_is_too_old(rest: Rest) -> None:
    path = rest.app_path("/events")
    assert rest.request("POST", path, VECTOR_BODY).status == 200
    reply = rest.request("POST", path, VECTOR_BODY, timestamp=1_700_000_000)
    assert reply.status == 401 and "Timestamp expired" in reply.text


@pytest.mark.parametrize(("seconds", "status"), [(-590, 200), (590, 200), (-600, 401), (610, 401), (-100_000, 401)])
def test_s137_the_clock_may_differ_by_less_than_600_seconds(rest: Rest, seconds: int, status: int) -> None:
    reply = rest.request("GET", channels_path(rest.target), timestamp=int(time.time()) + seconds)
    assert reply.status == status, reply.text


@pytest.mark.parametrize("timestamp", ["", "now", "1e9", "-1", "99999999999999999999999"])
def test_s137_a_timestamp_that_is_no_number_is_refused(rest: Rest, timestamp: str) -> None:
    pairs = [("auth_key", rest.target.key), ("auth_timestamp", timestamp), ("auth_version", "1.0")]
    assert get(rest, signed(rest, pairs)).status == 401


@pytest.mark.parametrize("missing", ["auth_key", "auth_timestamp", "auth_version", "auth_signature"])
def test_s138_s139_a_missing_parameter_is_401(rest: Rest, missing: str) -> None:
    pairs = [pair for pair in signed(rest, auth_pairs(rest.target)) if pair[0] != missing]
    if missing in ("auth_version", "auth_timestamp"):
        pairs = signed(rest, [pair for pair in pairs if pair[0] != "auth_signature"])
    assert get(rest, pairs).status == 401


def test_s139_another_version_is_401(rest: Rest) -> None:
    pairs = [pair for pair in auth_pairs(rest.target) if pair[0] != "auth_version"] + [("auth_version", "2.0")]
    assert get(rest, signed(rest, pairs)).status == 401


def test_s140_an_unknown_key_is_401_and_said(target: Target) -> None:
    reply = Rest(target.app(target.app_id, "unknown-key", target.secret)).get("/channels")
    assert reply.status == 401 and "Unknown auth_key" in reply.text


def test_s141_a_key_of_another_app_is_not_accepted(target: Target) -> None:
    reply = Rest(target.app("43", target.key, target.secret)).get("/channels")
    assert reply.status in (401, 404)


def test_s142_a_changed_body_is_401_and_not_published(wire: OpenWire, rest: Rest, name: Name) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    body = b'{"name":"x","channels":["%s"],"data":"1"}' % channel.encode()
    path = rest.app_path("/events")
    pairs = [*auth_pairs(rest.target), ("body_md5", md5_hex(body))]
    query = joined([*pairs, ("auth_signature", sign(rest.target.secret, "POST", path, pairs))])
    assert rest.unsigned("POST", f"{path}?{query}", body.replace(b'"1"', b'"2"')).status == 401
    assert rest.unsigned("POST", f"{path}?{query}", body).status == 200
    assert connection.expect("x", channel).data == "1"


def test_s142_a_body_without_its_md5_is_401(rest: Rest, name: Name) -> None:
    path = rest.app_path("/events")
    pairs = auth_pairs(rest.target)
    query = joined([*pairs, ("auth_signature", sign(rest.target.secret, "POST", path, pairs))])
    body = b'{"name":"x","channels":["a"],"data":"1"}'
    assert rest.unsigned("POST", f"{path}?{query}", body).status == 401


def test_s143_the_md5_of_nothing_on_a_get_is_part_of_what_is_signed(rest: Rest) -> None:
    pairs = [*auth_pairs(rest.target), ("body_md5", "d41d8cd98f00b204e9800998ecf8427e")]
    assert get(rest, signed(rest, pairs)).status == 200
    assert get(rest, [*signed(rest, auth_pairs(rest.target)), pairs[-1]]).status == 401


@pytest.mark.parametrize("comma", [",", "%2C", "%2c"])
def test_s144_a_comma_raw_or_encoded_verifies(rest: Rest, name: Name, comma: str) -> None:
    pairs = [*auth_pairs(rest.target), ("filter_by_prefix", name("presence-")), ("info", "user_count,user_count")]
    wire_pairs = [(key, value.replace(",", comma)) for key, value in signed(rest, pairs)]
    assert get(rest, wire_pairs).status == 200


def test_s145_any_order_on_the_wire_verifies(rest: Rest) -> None:
    pairs = signed(rest, [*auth_pairs(rest.target), ("filter_by_prefix", "a"), ("zzz", "1")])
    for order in (pairs, pairs[::-1], pairs[3:] + pairs[:3]):
        assert get(rest, order).status == 200


def test_s147_parameter_names_in_upper_case_verify(rest: Rest) -> None:
    pairs = signed(rest, auth_pairs(rest.target))
    assert get(rest, [(key.upper(), value) for key, value in pairs]).status == 200


@pytest.mark.parametrize("escaped", [False, True])
@pytest.mark.parametrize("sign_escaped", [False, True])
def test_s148_special_characters_of_a_name_in_the_path(
    wire: OpenWire, rest: Rest, name: Name, escaped: bool, sign_escaped: bool
) -> None:
    channel = name("a@b,c;d=e")
    wire().subscribe(channel)
    encoded = channel.replace("@", "%40").replace(",", "%2C").replace(";", "%3B").replace("=", "%3D")
    if sign_escaped and not escaped:
        return
    path = f"{channels_path(rest.target)}/{encoded if sign_escaped else channel}"
    query = joined(signed(rest, auth_pairs(rest.target), path))
    reply = rest.unsigned("GET", f"{channels_path(rest.target)}/{encoded if escaped else channel}?{query}")
    assert (reply.status, reply.text and reply.json()) == (200, {"occupied": True})


def test_s149_a_wrong_digit_is_401_with_the_string_to_sign_and_nothing_is_published(
    wire: OpenWire, rest: Rest, name: Name
) -> None:
    channel = name("a")
    connection = wire()
    connection.subscribe(channel)
    body = b'{"name":"x","channels":["%s"],"data":"1"}' % channel.encode()
    path = rest.app_path("/events")
    pairs = sorted([*auth_pairs(rest.target), ("body_md5", md5_hex(body))])
    signature = hmac_hex(rest.target.secret, f"POST\n{path}\n{joined(pairs)}")
    wrong = signature[:-1] + ("0" if signature[-1] != "0" else "1")
    reply = rest.unsigned("POST", f"{path}?{joined([*pairs, ('auth_signature', wrong)])}", body)
    assert reply.status == 401
    assert f"POST\\n{path}\\n{joined(pairs)}" in reply.text and wrong in reply.text
    assert signature not in reply.text and rest.target.secret not in reply.text
    rest.publish(channel, "marker")
    assert connection.until("marker") == []


def test_s150_errors_are_text_with_a_newline_and_json_for_who_accepts_it(target: Target) -> None:
    stranger = Rest(target.app(target.app_id, "unknown-key", target.secret))
    text = stranger.get("/channels")
    assert text.headers["content-type"].startswith("text/plain") and text.text.endswith("\n")
    path = channels_path(target)
    as_json = stranger.request("GET", path, headers=[("Accept", "application/json")])
    assert as_json.headers["content-type"].startswith("application/json")
    assert as_json.status == 401 and as_json.json()["status"] == 401 and isinstance(as_json.json()["error"], str)
