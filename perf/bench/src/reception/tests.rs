//! Dialogues, whole and cut into pieces.

use super::*;
use crate::body::Maker;

/// Feeds `input` in pieces of `piece` bytes; gives all replies and the last outcome.
fn talk(input: &[u8], piece: usize, rules: &mut Rules) -> (String, Outcome) {
    let mut reception = Reception::new(rules).expect("not dropped");
    let (mut kept, mut outcome) = (Vec::new(), Outcome::NeedInput);
    for part in input.chunks(piece) {
        kept.extend_from_slice(part);
        loop {
            let (used, next) = reception.step(&kept, rules);
            kept.drain(..used);
            outcome = next;
            if outcome != Outcome::Pause {
                break;
            }
        }
        if matches!(outcome, Outcome::Drop | Outcome::Leave) {
            break;
        }
    }
    (String::from_utf8(reception.out).expect("text"), outcome)
}

fn codes(replies: &str) -> Vec<&str> {
    replies.lines().filter(|line| line.as_bytes()[3] == b' ').map(|line| &line[..3]).collect()
}

fn rules() -> Rules {
    Rules { verify: true, receipts_wanted: true, ..Rules::default() }
}

fn message(seq: u64) -> Vec<u8> {
    let mut maker = Maker::new("cafe", "a@x.test", "b@y.test", "now", 2000);
    let (head, text) = maker.make(seq, 1000);
    [head, text, b"\r\n.\r\n"].concat()
}

#[test]
fn every_cut_of_a_session_gives_the_same() {
    let mut input = b"EHLO me\r\nmail from:<> SIZE=9\r\nRCPT TO:<a@b>\r\nRCPT TO: <\"c d\"@e>\r\nDATA\r\n".to_vec();
    input.extend(message(7));
    input.extend(b"MAIL FROM:<x@y>\r\nRCPT TO:<r0@z>\r\nDATA\r\n.\r\nNOOP\r\nQUIT\r\n");
    for piece in 1..200 {
        let mut rules = rules();
        let (replies, outcome) = talk(&input, piece, &mut rules);
        assert_eq!(
            codes(&replies),
            ["220", "250", "250", "250", "250", "354", "250", "250", "250", "354", "250", "250", "221"],
            "pieces of {piece}"
        );
        assert_eq!(outcome, Outcome::Leave);
        assert_eq!(String::from_utf8_lossy(&rules.receipts), "cafe-000000000007 a\ncafe-000000000007 \"c?d\"\n");
        let tally = rules.tally;
        assert_eq!((tally.messages, tally.recipients, tally.damaged, tally.unmarked, tally.mistakes), (2, 3, 0, 1, 0));
    }
}

#[test]
fn chunks_are_taken_and_checked() {
    let stuffed = message(3);
    let text = &stuffed[..stuffed.len() - 3];
    let at = memmem::find(text, b"\r\n..").expect("a stuffed line") + 2;
    let plain = [&text[..at], &text[at + 1..]].concat();
    let mut input = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<r0@z>\r\n".to_vec();
    for (part, last) in [(&plain[..300], ""), (&plain[300..], " LAST")] {
        input.extend(format!("BDAT {}{last}\r\n", part.len()).bytes());
        input.extend(part);
    }
    input.extend(b"BDAT 3 LAST\r\nabcQUIT\r\n");
    for piece in [1, 7, 299, 5000] {
        let mut rules = rules();
        let (replies, _) = talk(&input, piece, &mut rules);
        assert_eq!(codes(&replies), ["220", "250", "250", "250", "250", "250", "503", "221"]);
        assert_eq!((rules.tally.messages, rules.tally.damaged, rules.tally.unmarked), (1, 0, 0));
        assert_eq!(rules.receipts, b"cafe-000000000003 r0\n");
    }
}

#[test]
fn a_changed_body_is_counted_and_leaves_no_receipt() {
    let mut input = b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<r0@z>\r\nDATA\r\n".to_vec();
    let mut changed = message(1);
    let at = changed.len() - 20;
    changed[at] ^= 1;
    input.extend(changed);
    let mut rules = rules();
    talk(&input, 4096, &mut rules);
    assert_eq!((rules.tally.messages, rules.tally.damaged), (1, 1));
    assert!(rules.receipts.is_empty());
}

#[test]
fn mistakes_are_answered_and_counted() {
    let mut rules = rules();
    let input = b"MAIL FROM:<a@b>\r\nEHLO me\r\nRCPT TO:<a@b>\r\nDATA\r\nMAIL FROM:<a@b>\r\nMAIL FROM:<a@b>\r\n\
        RCPT TO:<>\r\nRCPT a@b\r\nDATA\r\nXYZZY\r\nBDAT x\r\n";
    let (replies, outcome) = talk(input, 4096, &mut rules);
    let wanted = ["220", "503", "250", "503", "503", "250", "503", "501", "501", "554", "500", "501"];
    assert_eq!(codes(&replies), wanted);
    assert_eq!((outcome, rules.tally.mistakes), (Outcome::Leave, 8));
    let endless = vec![b'x'; LINE_BYTES_MAX + 1];
    assert_eq!(talk(&endless, endless.len(), &mut rules).1, Outcome::Drop);
}

#[test]
fn it_misbehaves_as_told() {
    let session = [b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<r0@z>\r\nDATA\r\n".as_slice(), &message(1)].concat();
    let share = |text: &str| vec![text.parse::<Share<u16>>().expect("a share")];
    let mut refusing = Rules { reject_rcpt: share("450"), ..Rules::default() };
    let (replies, _) = talk(&session[..session.len() - message(1).len()], 4096, &mut refusing);
    assert_eq!(codes(&replies), ["220", "250", "250", "450", "554"]);
    let mut refusing = Rules { reject_end: share("421"), ..Rules::default() };
    let (replies, outcome) = talk(&session, 4096, &mut refusing);
    assert_eq!((codes(&replies)[5], outcome, refusing.tally.refused), ("421", Outcome::Leave, 1));
    for at in ["mail", "data", "end"] {
        let drop = vec![at.parse::<Share<DropAt>>().expect("a share")];
        let mut dropping = Rules { drop, ..Rules::default() };
        assert_eq!(talk(&session, 100, &mut dropping).1, Outcome::Drop, "{at}");
        assert_eq!((dropping.tally.dropped, dropping.tally.messages), (1, 0));
    }
    let drop = vec!["greeting".parse::<Share<DropAt>>().expect("a share")];
    assert!(Reception::new(&mut Rules { drop, ..Rules::default() }).is_none());
}
