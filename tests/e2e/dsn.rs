//! What a sender wants to be told of his message (RFC 3461): NOTIFY, ORCPT, RET, ENVID, and the reports that follow.

use std::time::Duration;

use crate::support::{Script, Server, Setup, Sink, maildir, wait_until};

const SOON: Duration = Duration::from_secs(60);

/// A server with a mailbox, a relay that offers DSN, one that does not, and the way back to the sender.
struct Scene {
    server: Server,
    knowing: Sink,
    old: Sink,
    sender: Sink,
}

impl Scene {
    fn new() -> Self {
        let (knowing, old, sender) = (Sink::open(), Sink::open(), Sink::open());
        knowing.script(Script { dsn: true, ..Script::default() });
        let server = Setup::new(format!(
            "action \"box\" maildir \"@DIR@/mail\" userbase {{ u = 0:0:/ }}\n\
             action \"knowing\" relay host \"smtp://{0}\"\n\
             action \"old\" relay host \"smtp://{1}\"\naction \"back\" relay host \"smtp://{2}\"\n\
             match from any for domain box.example action \"box\"\n\
             match from any for domain knowing.example action \"knowing\"\n\
             match from any for domain old.example action \"old\"\n\
             match from any for domain source.example action \"back\"\n",
            knowing.address, old.address, sender.address
        ))
        .start();
        Self { server, knowing, old, sender }
    }

    /// Sends a message with these parameters to one recipient.
    fn send(&self, mail: &str, to: &str, rcpt: &str) {
        let mut client = self.server.client();
        for command in [format!("MAIL FROM:<a@source.example> {mail}"), format!("RCPT TO:<{to}> {rcpt}")] {
            let reply = client.say(&command);
            assert_eq!(reply.code, 250, "{command}: {reply:?}");
        }
        assert_eq!(client.say("DATA").code, 354);
        assert_eq!(client.say("Subject: wanted\r\n\r\nthe secret text\r\n.").code, 250);
    }

    /// The `count`th report that has come back to the sender.
    fn report(&self, count: usize) -> String {
        let report = self.sender.wait_for(count, SOON).remove(count - 1);
        assert_eq!((&*report.from, &*report.to), ("", &["a@source.example".to_owned()][..]));
        String::from_utf8(report.text.expect("it is small")).expect("ASCII")
    }
}

fn has(report: &str, lines: &[&str]) {
    for line in lines {
        assert!(report.lines().any(|one| one.trim_end() == *line), "no {line:?} in {report}");
    }
}

#[test]
fn success_is_reported_by_who_delivers_or_by_the_last_who_can() {
    let scene = Scene::new();
    scene.send("ENVID=id+2B1 RET=FULL", "u@box.example", "NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;list+2Bu@far.example");
    let report = scene.report(1);
    has(&report, &["Original-Envelope-Id: id+1", "Original-Recipient: rfc822; list+u@far.example"]);
    has(&report, &["Final-Recipient: rfc822; u@box.example", "Action: delivered", "Subject: wanted"]);
    assert!(!report.contains("the secret text"), "RET is about failures: {report}");
    maildir::wait_for_message(&scene.server.dir().join("mail"), "the message itself", |text| {
        String::from_utf8_lossy(text).contains("the secret text")
    });

    scene.send("ENVID=id2", "u@old.example", "NOTIFY=SUCCESS");
    let report = scene.report(2);
    has(&report, &["Original-Envelope-Id: id2", "Final-Recipient: rfc822; u@old.example", "Action: relayed"]);
    let received = scene.old.wait_for(1, SOON).remove(0);
    assert!(received.parameters[0].starts_with("SIZE=") && !received.parameters[0].contains("ENVID"));
    assert_eq!(received.parameters[1], "");

    scene.send("ENVID=id3 RET=HDRS", "u@knowing.example", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy@far.example");
    let received = scene.knowing.wait_for(1, SOON).remove(0);
    let expected = ["RET=HDRS ENVID=id3", "NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x+3Dy@far.example"];
    assert_eq!(received.parameters, expected);
    wait_until("nothing is left", SOON, || scene.server.queue().is_empty());
    assert_eq!(scene.sender.count(), 2, "who offers DSN reports by itself");
}

#[test]
fn failure_is_reported_as_it_was_wanted_or_not_at_all() {
    let scene = Scene::new();
    let nobody = Script { rcpt: vec![("@".into(), "550 5.1.1 nobody".into())], ..Script::default() };
    scene.old.script(nobody.clone());
    scene.knowing.script(Script { dsn: true, ..nobody });
    for (place, rcpt) in ["NOTIFY=NEVER", "NOTIFY=SUCCESS", "NOTIFY=DELAY"].into_iter().enumerate() {
        scene.send("", &format!("silent{place}@old.example"), rcpt);
    }
    wait_until("nothing is left", SOON, || scene.server.queue().is_empty());
    assert_eq!(scene.sender.count(), 0, "nobody wanted to know");
    scene.send("ENVID=e1 RET=FULL", "u@old.example", "NOTIFY=FAILURE ORCPT=rfc822;first@far.example");
    let report = scene.report(1);
    has(&report, &["Original-Envelope-Id: e1", "Original-Recipient: rfc822; first@far.example", "Action: failed"]);
    has(&report, &["Status: 5.1.1", "Content-Type: message/rfc822", "the secret text"]);
    scene.send("RET=HDRS", "u@knowing.example", "");
    let report = scene.report(2);
    has(&report, &["Action: failed", "Content-Type: text/rfc822-headers", "Subject: wanted"]);
    assert!(!report.contains("the secret text") && !report.contains("Original-Envelope-Id"), "{report}");
}
