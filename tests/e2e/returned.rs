//! Mail that comes back: reverse-paths for each recipient (VERP), and reports and complaints that are read as they come in.

use std::time::Duration;

use crate::srs;
use crate::support::mail::wait_for_all;
use crate::support::{Script, Server, Setup, Sink, maildir, wait_until};

const SOON: Duration = Duration::from_secs(20);

/// A report of another server that mail for this recipient has failed.
fn report(recipient: &str, original: &str) -> Vec<u8> {
    let text = format!(
        "From: <mailer-daemon@there.example>\nSubject: Undelivered\nContent-Type: multipart/report; \
         report-type=delivery-status;\n\tboundary=\"=_b\"\n\n--=_b\nContent-Type: text/plain\n\nno\n--=_b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.there.example\n\n\
         Final-Recipient: rfc822; {recipient}\nAction: failed\nStatus: 5.1.1\n\
         Diagnostic-Code: smtp; 550 5.1.1 no \"such\"\n user\n\n--=_b\nContent-Type: message/rfc822\n\n\
         Message-ID: <1@list.example>\n\n{original}\n--=_b--\n"
    );
    text.replace('\n', "\r\n").into_bytes()
}

/// The lines about what has come back.
fn told(server: &Server) -> Vec<String> {
    let printed = server.printed();
    let lines = printed.lines().filter_map(|line| line.find("feedback id=").map(|at| line[at..].to_owned()));
    lines.collect()
}

fn wait_for_lines(server: &Server, count: usize) -> Vec<String> {
    wait_until("it is told", SOON, || told(server).len() >= count);
    let lines = told(server);
    assert_eq!(lines.len(), count, "{lines:?}");
    lines
}

fn lists(sink: &Sink, action: &str) -> Server {
    Setup::new(format!(
        "action \"home\" maildir \"@DIR@/mail/%{{rcpt.user:strip}}\"\n\
         action \"bulk\" relay host \"smtp+notls://{}\" {action}\n\
         match from any for domain \"list.example\" action \"home\"\nmatch from any for any action \"bulk\"\n",
        sink.address
    ))
    .start()
}

#[test]
fn verp_each_recipient_has_a_reverse_path_and_what_comes_back_tells_whom_it_is_about() {
    let sink = Sink::open();
    sink.script(Script { rcpt: vec![("gone@".into(), "550 5.1.1 nobody".into())], ..Script::default() });
    let server = lists(&sink, "verp");
    let mail = server.dir().join("mail").join("news");
    let mut client = server.client();
    let to = ["joe@one.example", "jim+tag@two.example", "gone@one.example"];
    assert_eq!(client.submit("news@list.example", &to, b"Subject: x\r\n\r\nhello\r\n").code, 250);
    let mut sent: Vec<_> = sink.wait_for(2, SOON).into_iter().map(|one| (one.from, one.to)).collect();
    sent.sort();
    let paths = ["news+jim+tag=two.example@list.example", "news+joe=one.example@list.example"];
    let to = [vec![to[1].to_owned()], vec![to[0].to_owned()]];
    assert_eq!(sent, paths.map(str::to_owned).into_iter().zip(to).collect::<Vec<_>>());
    // Ours goes where that of another server would.
    let ours = maildir::wait_for_message(&mail, "our report", |text| text.starts_with(b"Return-Path: <>\n"));
    let ours = String::from_utf8_lossy(&ours);
    assert!(ours.contains("\nTo: <news+gone=one.example@list.example>\n"), "{ours}");
    assert_eq!(told(&server).len(), 0, "what was made here has been told of already");

    // One that is larger than what is kept in memory: it is delivered as well.
    let large = report("joe@inner.one.example", &"text\n".repeat(100_000));
    assert_eq!(client.submit("", &[paths[1]], &large).code, 250);
    let lines = wait_for_lines(&server, 1);
    let expected = "kind=bounce by=verp at=<news+joe=one.example@list.example> from=<news@list.example> \
                    to=<joe@one.example> last=<joe@inner.one.example> msgid=<1@list.example> reporter=\"mx.there.example\" \
                    class=no-such-user dsn=5.1.1 stat=\"550 5.1.1 no 'such' user\"";
    assert!(lines[0].ends_with(expected), "{lines:?}");
    maildir::wait_for_message(&mail, "their report", |text| text.len() > 500_000);

    // What is no report: the address tells all the same, if it comes from nobody.
    assert_eq!(client.submit("", &[paths[0]], b"Subject: gone\r\n\r\nno such person here\r\n").code, 250);
    assert_eq!(client.submit("jim@two.example", &[paths[0]], b"Subject: Re: x\r\n\r\nthanks\r\n").code, 250);
    let lines = wait_for_lines(&server, 2);
    assert!(lines[1].contains(" kind=unknown by=verp ") && lines[1].ends_with("to=<jim+tag@two.example>"), "{lines:?}");
    wait_for_all(&server);
    let counts = ["feedback_bounces", "feedback_complaints", "feedback_others"].map(|name| server.metric(name));
    assert_eq!((counts, told(&server).len()), ([1, 0, 1], 2));
}

#[test]
fn verp_is_asked_for_with_a_message_and_outlives_a_restart() {
    let sink = Sink::open();
    sink.script(Script { rcpt: vec![("@".into(), "451 4.3.0 not now".into())], ..Script::default() });
    let mut server = lists(&sink, "");
    let mut client = server.client();
    assert!(client.say("EHLO c.example").lines.iter().any(|line| line.ends_with("XVERP")));
    assert_eq!(client.say("MAIL FROM:<> XVERP").code, 503, "nobody has a path");
    assert_eq!(client.say("MAIL FROM:<news@list.example> XVERP=-=").code, 501, "not the delimiters of this server");
    for said in ["MAIL FROM:<news@list.example> XVERP=+=", "RCPT TO:<joe@one.example>", "RCPT TO:<jim@one.example>"] {
        assert_eq!(client.say(said).code, 250, "{said}");
    }
    assert_eq!(client.say("DATA").code, 354);
    client.send(b"Subject: x\r\n\r\nhello\r\n.\r\n");
    client.expect("250");
    wait_until("both wait", SOON, || server.printed().matches("result=TempFail").count() >= 2);
    server.stop();
    sink.script(Script::default());
    server.start();
    server.retry();
    let mut paths: Vec<String> = sink.wait_for(2, SOON).into_iter().map(|one| one.from).collect();
    paths.sort();
    assert_eq!(paths, ["news+jim=one.example@list.example", "news+joe=one.example@list.example"]);
}

#[test]
fn complaints_to_a_named_address_are_told_of_and_go_where_the_rules_say() {
    let server = Setup::new(
        "action \"fbl\" discard feedback\naction \"rest\" discard\n\
         match from any for rcpt-to fbl@list.example action \"fbl\"\nmatch from any for any action \"rest\"\n",
    )
    .start();
    let complaint = |original: &str| {
        let text = format!(
            "From: <fbl@provider.example>\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\
             Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: Provider\"s/1\nVersion: 1\n\
             {original}Source-IP: 192.0.2.9\n\n--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: <2@list.example>\n\n--b--\n"
        );
        text.replace('\n', "\r\n").into_bytes()
    };
    let mut client = server.client();
    let plain = complaint("Original-Mail-From: <news@list.example>\nOriginal-Rcpt-To: <joe@one.example>\n");
    // Not to that address, and nothing of the kind.
    assert_eq!(client.submit("fbl@provider.example", &["other@list.example"], &plain).code, 250);
    assert_eq!(client.submit("joe@one.example", &["fbl@list.example"], b"Subject: x\r\n\r\nhello\r\n").code, 250);
    assert_eq!(client.submit("fbl@provider.example", &["other@list.example", "fbl@list.example"], &plain).code, 250);
    let secret = complaint("Original-Mail-From: <news+jim=two.example@list.example>\n");
    assert_eq!(client.submit("", &["fbl@list.example"], &secret).code, 250);
    let lines = wait_for_lines(&server, 2);
    for (line, to) in lines.iter().zip(["joe@one.example", "jim@two.example"]) {
        let expected = format!(
            "kind=complaint type=\"abuse\" by=address at=<fbl@list.example> from=<news@list.example> to=<{to}> \
             msgid=<2@list.example> reporter=\"Provider's/1\" source=\"192.0.2.9\""
        );
        assert!(line.ends_with(&expected), "{line}");
    }
    wait_for_all(&server);
    let counts = ["feedback_bounces", "feedback_complaints", "feedback_others"].map(|name| server.metric(name));
    assert_eq!(counts, [0, 2, 0]);
}

#[test]
fn srs_reports_about_forwarded_mail_are_told_of_and_go_on_to_the_sender() {
    let sink = Sink::open();
    let server = srs::forwarder(&sink);
    let mut client = server.client();
    assert_eq!(client.submit("gilles@poolp.example", &["all@here.example"], b"Subject: x\r\n\r\nhello\r\n").code, 250);
    let path = sink.wait_for(1, SOON)[0].from.clone();
    assert_eq!(client.submit("", &[&path], &report("you@there.example", "x")).code, 250);
    let lines = wait_for_lines(&server, 1);
    let expected = format!("kind=bounce by=srs at=<{path}> from=<gilles@poolp.example> to=<you@there.example> ");
    assert!(lines[0].contains(&expected), "{lines:?}");
    assert_eq!(sink.wait_for(2, SOON)[1].to, ["gilles@poolp.example"]);
    let forged = path.replace("=gilles@", "=eric@");
    assert_eq!(client.say("MAIL FROM:<>").code, 250);
    assert_eq!(client.say(&format!("RCPT TO:<{forged}>")).code, 550);
    assert_eq!(told(&server).len(), 1);
}
