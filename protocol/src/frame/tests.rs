//! Frames and messages against RFC 6455.

use super::*;

const MAX: usize = 1 << 20;

/// A client's frame with a mask.
fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let server_frame = match first & 0x0f {
        8..=10 => encode_control(OpCode::Ping, payload),
        _ => encode(OpCode::Text, payload),
    };
    mask_server_frame(first, &server_frame, [0x37, 0xfa, 0x21, 0x3d])
}

fn mask_server_frame(first: u8, frame: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let header = match frame[1] {
        127 => 10,
        126 => 4,
        _ => 2,
    };
    let mut masked = frame[..header].to_vec();
    masked[0] = first;
    masked[1] |= MASKED;
    masked.extend(mask);
    masked.extend(frame[header..].iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    masked
}

fn error(input: &[u8]) -> FrameError {
    parse_frame(&mut input.to_vec(), MAX).unwrap_err()
}

/// Parses one frame that fills the input.
fn whole(input: &[u8]) -> (Frame, Vec<u8>) {
    let mut input = input.to_vec();
    match parse_frame(&mut input, MAX).unwrap() {
        Parsed::Frame { consumed, frame } => {
            assert_eq!(consumed, input.len());
            let payload = input[frame.payload.clone()].to_vec();
            (frame, payload)
        }
        Parsed::Incomplete { .. } => panic!("incomplete"),
    }
}

/// Everything a sequence of frames amounts to, texts and bytes alike.
fn assemble(frames: &[(u8, &[u8])]) -> Result<Vec<Message<'static>>, FrameError> {
    let mut assembler = Assembler::default();
    let mut messages = Vec::new();
    for (first, payload) in frames {
        let (frame, payload) = whole(&client_frame(*first, payload));
        match assembler.push(&frame, &payload, MAX)? {
            Some(Message::Text(text)) => messages.push(Message::Text(Cow::Owned(text.into_owned()))),
            Some(Message::Binary(bytes)) => messages.push(Message::Binary(Cow::Owned(bytes.into_owned()))),
            Some(Message::Ping(payload)) => messages.push(Message::Ping(payload.to_vec().leak())),
            Some(Message::Pong(payload)) => messages.push(Message::Pong(payload.to_vec().leak())),
            Some(Message::Close(close)) => {
                messages.push(Message::Close(close.map(|(code, reason)| (code, &*reason.to_owned().leak()))))
            }
            None => assert!(!assembler.is_idle()),
        }
    }
    Ok(messages)
}

fn text(text: &str) -> Message<'_> {
    Message::Text(text.into())
}

#[test]
fn the_masked_hello_of_the_rfc_is_read() {
    let (frame, payload) = whole(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
    assert_eq!((frame.fin, frame.opcode), (true, OpCode::Text));
    assert_eq!(payload, b"Hello");
}

#[test]
fn every_length_form_is_read_and_written() {
    for length in [0, 1, 7, 8, 9, 125, 126, 127, 65_535, 65_536, 70_001] {
        let sent = "x".repeat(length);
        let (frame, payload) = whole(&mask_server_frame(0x81, &encode_text(&sent), [1, 2, 3, 4]));
        assert_eq!(frame.opcode, OpCode::Text);
        assert_eq!(payload, sent.as_bytes());
    }
}

#[test]
fn the_text_of_a_server_frame_is_read_back() {
    for length in [0, 1, 125, 126, 65_535, 65_536] {
        let text = "x".repeat(length);
        assert_eq!(text_of(&encode_text(&text)), text);
    }
    for bytes in [&b""[..], &[0x81], &[0x81, 126], &[0x81, 127, 0], &[0x81, 1, 0xff]] {
        assert_eq!(text_of(bytes), "");
    }
}

#[test]
fn a_part_of_a_frame_names_what_is_needed() {
    let complete = client_frame(0x81, &[b'x'; 300]);
    for end in 0..complete.len() {
        let mut part = complete[..end].to_vec();
        let needed = if end < 4 { 0 } else { complete.len() };
        assert_eq!(parse_frame(&mut part, MAX), Ok(Parsed::Incomplete { needed }), "{end}");
        assert_eq!(part, complete[..end], "an incomplete frame stays masked");
    }
}

#[test]
fn a_second_frame_in_the_input_is_left_alone() {
    let mut input = [client_frame(0x81, b"one"), client_frame(0x81, b"two")].concat();
    let before = input.clone();
    let Ok(Parsed::Frame { consumed, .. }) = parse_frame(&mut input, MAX) else { panic!("incomplete") };
    assert_eq!(input[consumed..], before[consumed..]);
}

#[test]
fn a_wrong_header_is_refused_at_its_first_wrong_byte() {
    for (input, expected) in [
        (vec![0xc1], FrameError::ReservedBits),
        (vec![0xa1], FrameError::ReservedBits),
        (vec![0x91], FrameError::ReservedBits),
        (vec![0x83], FrameError::UnknownOpCode(3)),
        (vec![0x87], FrameError::UnknownOpCode(7)),
        (vec![0x8b], FrameError::UnknownOpCode(11)),
        (vec![0x8f], FrameError::UnknownOpCode(15)),
        (vec![0x08], FrameError::FragmentedControl),
        (vec![0x09], FrameError::FragmentedControl),
        (vec![0x0a], FrameError::FragmentedControl),
        (vec![0x81, 0x05], FrameError::NotMasked),
        (vec![0x88, 0x00], FrameError::NotMasked),
        (vec![0x89, 0xfe], FrameError::LongControl),
        (vec![0x88, 0xff], FrameError::LongControl),
        (vec![0x81, 0xfe, 0, 125], FrameError::WastefulLength),
        (vec![0x81, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff], FrameError::WastefulLength),
        (vec![0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0], FrameError::ImpossibleLength),
    ] {
        assert_eq!(error(&input), expected, "{input:x?}");
        assert_eq!(expected.close_code(), 1002);
    }
}

#[test]
fn s038_a_payload_over_the_limit_is_refused_by_its_header() {
    let header = [0x81, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 1];
    assert_eq!(error(&header), FrameError::TooLarge { max_bytes: MAX });
    assert_eq!(error(&header).close_code(), 1009);
    assert_eq!(error(&[0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).close_code(), 1009);
    assert_eq!(parse_frame(&mut [0x81, 0xfe, 0, 200], 199), Err(FrameError::TooLarge { max_bytes: 199 }));
    let endless = [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    assert!(parse_frame(&mut endless.clone(), usize::MAX).is_ok());
    // Control frames have a limit of their own.
    assert_eq!(parse_frame(&mut [0x89, 0xfd], 0), Ok(Parsed::Incomplete { needed: 131 }));
}

#[test]
fn s039_fragments_are_joined_around_control_frames() {
    let frames: &[(u8, &[u8])] =
        &[(0x01, b"He"), (0x89, b"abc"), (0x00, b""), (0x8a, b""), (0x80, b"llo"), (0x81, b"!")];
    assert_eq!(
        assemble(frames).unwrap(),
        [Message::Ping(b"abc"), Message::Pong(b""), text("Hello"), text("!")]
    );
    assert_eq!(
        assemble(&[(0x02, b"\xff"), (0x80, b"\x00")]).unwrap(),
        [Message::Binary(vec![0xff, 0].into())]
    );
}

#[test]
fn an_unfragmented_text_is_borrowed_and_leaves_the_assembler_idle() {
    let (frame, payload) = whole(&client_frame(0x81, b"x"));
    let mut assembler = Assembler::default();
    let message = assembler.push(&frame, &payload, MAX).unwrap();
    assert!(matches!(message, Some(Message::Text(Cow::Borrowed("x")))));
    assert!(assembler.is_idle());
    assert_eq!(size_of::<Assembler>(), size_of::<usize>());
}

#[test]
fn fragments_must_follow_their_start() {
    assert_eq!(assemble(&[(0x80, b"x")]), Err(FrameError::NothingToContinue));
    assert_eq!(assemble(&[(0x00, b"x")]), Err(FrameError::NothingToContinue));
    assert_eq!(assemble(&[(0x01, b"x"), (0x81, b"y")]), Err(FrameError::UnfinishedMessage));
    assert_eq!(assemble(&[(0x01, b"x"), (0x02, b"y")]), Err(FrameError::UnfinishedMessage));
    assert_eq!(assemble(&[(0x01, b"x"), (0x80, b""), (0x80, b"")]), Err(FrameError::NothingToContinue));
}

#[test]
fn fragments_together_stay_below_the_limit() {
    let mut assembler = Assembler::default();
    let (start, payload) = whole(&client_frame(0x01, b"12345"));
    assembler.push(&start, &payload, 8).unwrap();
    let (end, payload) = whole(&client_frame(0x80, b"6789"));
    assert_eq!(assembler.push(&end, &payload, 8), Err(FrameError::TooLarge { max_bytes: 8 }));
    assert_eq!(assembler.push(&end, &payload[..3], 8), Ok(Some(text("12345678"))));
    assert!(assembler.is_idle());
}

#[test]
fn a_character_may_be_cut_by_fragments_but_must_end() {
    let smile = "😀".as_bytes();
    assert_eq!(
        assemble(&[(0x01, &smile[..1]), (0x00, &smile[1..3]), (0x80, &smile[3..])]).unwrap(),
        [text("😀")]
    );
    assert_eq!(assemble(&[(0x01, &smile[..2]), (0x80, b"")]), Err(FrameError::NotUtf8));
    assert_eq!(assemble(&[(0x81, &smile[..2])]), Err(FrameError::NotUtf8));
    assert_eq!(FrameError::NotUtf8.close_code(), 1007);
}

#[test]
fn a_fragment_that_cannot_become_text_fails_before_the_last_one() {
    for start in [b"\xff".as_slice(), b"ok\xc0\xaf", b"\xed\xa0\x80", b"\xf4\x90"] {
        assert_eq!(assemble(&[(0x01, start)]), Err(FrameError::NotUtf8), "{start:x?}");
    }
    assert_eq!(assemble(&[(0x01, b"\xe2"), (0x00, b"x")]), Err(FrameError::NotUtf8));
}

fn close(payload: &[u8]) -> Result<Vec<Message<'static>>, FrameError> {
    assemble(&[(0x88, payload)])
}

#[test]
fn a_close_frame_carries_a_valid_code_or_nothing() {
    assert_eq!(close(b"").unwrap(), [Message::Close(None)]);
    for code in (1000..=1003).chain(1007..=1011).chain([3000, 3999, 4000, 4999_u16]) {
        assert_eq!(close(&code.to_be_bytes()).unwrap(), [Message::Close(Some((code, "")))]);
    }
    for code in [0, 999, 1004, 1005, 1006, 1012, 1015, 1016, 1100, 2000, 2999, 5000, 65_535_u16] {
        assert_eq!(close(&code.to_be_bytes()), Err(FrameError::InvalidCloseCode(code)));
    }
    assert_eq!(close(b"\x03"), Err(FrameError::HalfCloseCode));
    assert_eq!(close(b"\x03\xe8bye").unwrap(), [Message::Close(Some((1000, "bye")))]);
    assert_eq!(close(b"\x03\xe8\xff"), Err(FrameError::NotUtf8));
}

#[test]
fn encoded_frames_are_whole_and_unmasked() {
    assert_eq!(&encode_text("Hello")[..], b"\x81\x05Hello");
    assert_eq!(&encode_ping(b"")[..], b"\x89\x00");
    assert_eq!(&encode_pong(b"abc")[..], b"\x8a\x03abc");
    assert_eq!(&encode_close(4001, "no")[..], b"\x88\x04\x0f\xa1no");
    assert_eq!(encode_text(&"x".repeat(126))[..4], [0x81, 126, 0, 126]);
    assert_eq!(encode_text(&"x".repeat(65_536))[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
}

#[test]
fn control_payloads_are_cut_to_what_fits() {
    assert_eq!(encode_ping(&[b'x'; 200]).len(), 127);
    let close = encode_close(1000, &"é".repeat(100));
    assert_eq!(close.len(), 2 + 2 + 122);
    assert!(std::str::from_utf8(&close[4..]).is_ok());
}
