//! Reports of strangers, spoiled again and again: none makes the reader fail, say what it must not, or say another thing when it
//! comes in other pieces. `RINGPOST_FUZZ_SEED` repeats a run, which prints its seed first.

use std::time::{SystemTime, UNIX_EPOCH};

use ringpost_message::feedback::{Feedback, Reader};
use ringpost_message::limits::{
    FEEDBACK_ADDRESS_BYTES_MAX, FEEDBACK_RECIPIENTS_MAX, FEEDBACK_TEXT_BYTES_MAX, FEEDBACK_WORD_BYTES_MAX,
};

const RUNS: usize = 20_000;
const BYTES_MAX: usize = 16 * 1024;

const SEEDS: &[&str] = &[
    "Content-Type: multipart/report; report-type=delivery-status; boundary=\"b\"\r\n\r\nx\r\n--b\r\n\
     Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.b.example\r\nOriginal-Envelope-Id: 7\r\n\r\n\
     Final-Recipient: rfc822; joe@b.example\r\nOriginal-Recipient: rfc822; j@b.example\r\nAction: failed\r\n\
     Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n\tno\r\n\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\n\
     Message-ID: <1@a.example>\r\n\r\n--b--\r\n",
    "Content-Type: multipart/report; boundary=b; report-type=feedback-report\r\n\r\n--b\r\n\
     Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x/1\r\n\
     Original-Mail-From: <a@a.example>\r\nOriginal-Rcpt-To: <joe@b.example>\r\nSource-IP: 192.0.2.1\r\n\
     Reported-Domain: a.example\r\n\r\n--b\r\nContent-Type: message/rfc822\r\n\r\nMessage-ID: <1@a.example>\r\n\r\nx\r\n--b--\r\n",
];

const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\n",
    b"\r",
    b"\r\n\r\n",
    b"--b",
    b"--b\r\n",
    b"--b--",
    b"--",
    b":",
    b";",
    b"=",
    b"\"",
    b"\\",
    b" ",
    b"\t",
    b"<",
    b">",
    b"\0",
    b"\xff",
    b"\xc3",
    b"\xe2\x80\xa8",
    b"\x1b[2J",
    b"boundary=b",
    b"Content-Type: ",
    b"multipart/report",
    b"message/delivery-status",
    b"message/feedback-report",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: quoted-printable\r\n",
    b"RmluYWwtUmVjaXBpZW50OiByZmM4MjI7IGFAYgoK",
    b"=\r\n",
    b"=3D",
    b"message/rfc822",
    b"Final-Recipient: rfc822; x@y",
    b"Action: failed",
    b"Status: 5.1.1",
    b"Status: 99999999999.1.1",
    b"rfc822;",
    b"Message-ID: <",
];

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % bound.max(1) as u64) as usize
    }
}

fn spoil(text: &mut Vec<u8>, random: &mut Random) {
    let from = random.below(text.len() + 1);
    let to = (from + random.below(40)).min(text.len());
    let word = WORDS[random.below(WORDS.len())];
    match random.below(6) {
        0 => drop(text.drain(from..to)),
        1 => drop(text.splice(from..from, word.iter().copied())),
        2 => drop(text.splice(from..to, word.iter().copied())),
        3 => {
            let piece = text[from..to].to_vec();
            let count = 1 + random.below(100);
            let at = random.below(text.len() + 1);
            drop(text.splice(at..at, piece.repeat(count)));
        }
        4 => text.truncate(from),
        _ => {
            let byte = random.below(256) as u8;
            if let Some(place) = text.get_mut(from) {
                *place = byte;
            }
        }
    }
    text.truncate(BYTES_MAX);
}

/// What a report says, which must be fit for a line of the log, whoever has written it.
fn look_at(feedback: &Feedback) {
    let address = |text: &str| {
        assert!(text.len() <= FEEDBACK_ADDRESS_BYTES_MAX, "{text:?}");
        assert!(!text.contains(|c: char| c.is_whitespace() || matches!(c, '<' | '>' | '"')), "{text:?}");
    };
    let plain = |text: &str, most: usize| {
        assert!(text.len() <= most && !text.contains(|c: char| c.is_control()), "{text:?}");
    };
    match feedback {
        Feedback::Delivery(said) => {
            assert!((1..=FEEDBACK_RECIPIENTS_MAX).contains(&said.recipients.len()));
            [&said.reporter, &said.message_id].into_iter().for_each(|text| address(text));
            plain(&said.envelope_id, FEEDBACK_WORD_BYTES_MAX);
            for one in &said.recipients {
                [&one.address, &one.original].into_iter().for_each(|text| address(text));
                assert!(!one.address.is_empty());
                plain(&one.diagnostic, FEEDBACK_TEXT_BYTES_MAX);
                assert!(one.status.is_none_or(|(class, ..)| matches!(class, 2 | 4 | 5)));
            }
        }
        Feedback::Complaint(said) => {
            [&said.sender, &said.recipient, &said.domain, &said.message_id].into_iter().for_each(|text| address(text));
            [&said.kind, &said.agent, &said.source].into_iter().for_each(|text| plain(text, FEEDBACK_WORD_BYTES_MAX));
        }
    }
}

fn read<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> Option<Feedback> {
    let mut reader = Reader::new();
    pieces.for_each(|piece| reader.feed(piece));
    reader.finish()
}

#[test]
fn no_report_makes_the_reader_fail() {
    let given = std::env::var("RINGPOST_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
    let seed = given.unwrap_or_else(clock);
    println!("RINGPOST_FUZZ_SEED={seed}");
    let mut random = Random(seed);
    let (mut kept, mut reports) = (SEEDS.iter().map(|seed| seed.as_bytes().to_vec()).collect::<Vec<_>>(), 0);
    for _ in 0..RUNS {
        let mut text = kept[random.below(kept.len())].clone();
        for _ in 0..=random.below(4) {
            spoil(&mut text, &mut random);
        }
        let whole = read(std::iter::once(&text[..]));
        let size = 1 + random.below(200);
        assert_eq!(read(text.chunks(size)), whole, "in pieces of {size}: {:?}", String::from_utf8_lossy(&text));
        if let Some(feedback) = &whole {
            look_at(feedback);
            reports += 1;
            // What is still a report is spoiled further.
            if kept.len() < 200 {
                kept.push(text);
            }
        }
    }
    assert!(reports > RUNS / 20, "hardly anything was still a report: {reports}");
}
