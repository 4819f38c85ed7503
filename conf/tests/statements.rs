//! Mistakes and warnings of every statement: code and place of each, and nothing else.

use std::path::Path;

use ringpost_conf::{Exists, Memory, Options, Source, load};

const REST: &str = "action a discard\nmatch from any for local tag REST action a\n";

/// Codes with places. Files that are named are there.
fn codes(text: &str) -> Vec<String> {
    let files = Memory::default()
        .with("c", format!("{text}{REST}"))
        .with("/c", "")
        .with("/k", "")
        .with("/etc/mail/certs/x.crt", "")
        .with("/etc/mail/certs/x.key", "");
    let options = Options { interfaces: Some(vec!["eth0".into()]), ..Options::default() };
    let reports = match load(&files, Path::new("c"), &options) {
        Ok((_, warnings)) => warnings,
        Err(reports) => reports,
    };
    let one = |r: &ringpost_conf::Report| {
        let place = reports.place(r);
        format!("{}:{} {}", place.line, place.column, r.code)
    };
    reports.iter().map(one).collect()
}

#[track_caller]
fn check(cases: &[(&str, &[&str])]) {
    let wrong: Vec<String> = cases
        .iter()
        .map(|(text, expected)| (text, expected, codes(text)))
        .filter(|(_, expected, got)| got != *expected)
        .map(|(text, expected, got)| format!("{text}  expected {expected:?}, got {got:?}\n"))
        .collect();
    assert!(wrong.is_empty(), "\n{}", wrong.concat());
}

const PKI: &str = "pki mx cert /c key /k\n";

#[test]
fn listeners() {
    check(&[
        ("listen on eth0 tls\n", &["1:16 W0808"]),
        ("listen on eth0 tls # ok W0808\n", &[]),
        ("listen on eth0 tls # far away, ok W0808\n", &[]),
        ("listen on eth0 tls-require\n", &["1:16 E0612"]),
        ("listen on eth0 smtps verify\n", &["1:16 E0612"]),
        ("listen on eth0 tls pki nx\n", &["1:24 E0304"]),
        ("listen on eth0 tls ca nx # ok W0808\n", &["1:23 E0304"]),
        ("listen on eth0 tls tls-require # ok W0808\n", &["1:20 E0602"]),
        ("listen on eth1\n", &["1:11 W0813"]),
        ("listen on 192.0.2.1\n", &["1:11 W0813"]),
        ("listen on mx.example.org\n", &[]),
        ("listen on eth0 auth\n", &["1:16 E0603"]),
        ("listen on eth0 auth-optional\n", &["1:16 E0603"]),
        ("listen on lo0 auth\n", &[]),
        ("listen on lo0 auth { joe = secret }\n", &["1:28 W0807"]),
        ("listen on lo0 auth { joe = $2b$x }\n", &["1:28 E0104"]),
        ("listen on lo0 auth { joe = \"$2b$x\", jim = jim:\"{SSHA}x\" }\n", &["1:47 E0206"]),
        ("listen on lo0 auth { joe = \"$2b$x\", jim = \"jim:{SSHA}x\" }\n", &[]),
        ("listen on lo0 auth auth-optional\n", &["1:20 E0602"]),
        ("listen on lo0 auth-cert\n", &["1:15 W0810"]),
        ("listen on lo0 hostname a.example hostnames { 192.0.2.1 = b.example }\n", &["1:34 E0602"]),
        ("listen on lo0 hostnames { x = b.example }\n", &["1:27 E0403"]),
        ("listen on lo0 hostnames { 192.0.2.1 = \"a b\" }\n", &["1:39 E0403"]),
        ("listen on lo0 senders { joe = \"@\" } masquerade\n", &[]),
        ("listen on lo0 senders { joe = \"a b\" }\n", &["1:31 E0403"]),
        ("listen on lo0 filter nx\n", &["1:22 E0303"]),
        ("listen on lo0 filter { nx, ny }\n", &["1:24 E0303", "1:28 E0303"]),
        ("listen on lo0 ratelimit nx\n", &["1:25 E0308"]),
        ("listen on lo0 mask-source\n", &["1:15 W0804"]),
        ("listen on socket port 25\n", &["1:18 E0202"]),
        ("listen on socket tag X\nlisten on socket\n", &[]),
        ("listen on lo0 ssl port 26\n", &["1:15 W0804", "1:19 E0602"]),
        ("listen on lo0 secure certificate x\n", &["1:15 W0804"]),
        ("listen on lo0 secure\n", &["1:15 E0701", "1:15 E0701", "1:15 W0804"]),
    ]);
    let with = |text: &str| codes(&format!("{PKI}{text}"));
    assert_eq!(with("listen on eth0 smtps pki mx\n"), [""; 0]);
    assert_eq!(with("listen on eth0 smtps hostname mx\n"), [""; 0]);
    assert_eq!(with(""), ["1:5 W0803"]);
    assert_eq!(with("listen on eth0 smtps pki mx auth\nlisten on eth0 smtps pki mx\n"), ["3:1 E0601"]);
}

#[test]
fn keys() {
    check(&[
        ("pki \"*\" cert /c key /k\nlisten on eth0 tls\n", &[]),
        ("pki x cert /c\npki x key /k\nlisten on eth0 tls pki x\n", &[]),
        ("pki x cert /c key /k\npki x cert /c\nlisten on eth0 tls pki x\n", &["2:7 E0601"]),
        ("pki x cert /c\nlisten on eth0 tls pki x\n", &["1:5 E0203"]),
        ("pki x cert /c key /nx\nlisten on eth0 tls pki x\n", &["1:19 E0701"]),
        ("pki x cert /c key /k dhe auto\nlisten on eth0 tls pki x\n", &["1:22 W0810"]),
        ("pki x certificate /c key /k\nlisten on eth0 tls pki x\n", &["1:7 W0804"]),
        ("pki x from <t>\nlisten on eth0 tls pki x\n", &["1:12 E0301"]),
        ("pki x from { a = b }\n", &["1:12 E0203"]),
        ("table t { a.example = file:/c, file:/k }\npki x from <t>\nlisten on eth0 tls pki x\n", &[]),
        ("table t { a.example = file:/c }\npki x from <t>\nlisten on eth0 tls pki x\n", &["1:11 E0403"]),
        (
            "table t { a.example = file:/c, file:/k }\npki x from <t> cert /c\nlisten on eth0 tls pki x\n",
            &["2:16 E0602"],
        ),
        ("ca x\nlisten on eth0 tls ca x # ok W0808\n", &["1:4 E0203"]),
        ("ca x cert /nx\nlisten on eth0 tls ca x # ok W0808\n", &["1:11 E0701"]),
        ("ca x cert /c\nca x cert /c\nlisten on eth0 tls ca x # ok W0808\n", &["2:4 E0305"]),
    ]);
    let files = Memory::default().with("c", format!("{PKI}listen on lo0 tls pki mx\n{REST}")).with("/c", "");
    let reports = load(&files, Path::new("c"), &Options::default()).unwrap_err();
    assert!(reports.to_string().contains("cannot read `/k`: no such file"), "{reports}");
}

#[test]
fn actions() {
    let cases: &[(&str, &[&str])] = &[
        ("action b mbox user u", &["1:15 E0610"]),
        ("action b mbox wrapper w", &["1:15 E0610", "1:23 E0308"]),
        ("action b maildir junk", &[]),
        ("action b maildir \"junk\" user u ttl 1d", &[]),
        ("action b maildir \"~/x/%{user.username[0:1]}\"", &["1:38 W0806"]),
        ("action b maildir \"/x/%u/100%off\"", &["1:22 W0812"]),
        ("action b maildir \"/x/%{mda}\"", &["1:22 E0506"]),
        ("action b maildir \"/x/%{rcpt\"", &["1:22 E0506"]),
        ("action b maildir /x wrapper w", &["1:21 E0610", "1:29 E0308"]),
        ("action b mda", &["1:13 E0203"]),
        ("action b mda \"\"", &["1:14 E0203"]),
        ("action b mda \"x 'y\"", &["1:17 E0101"]),
        ("action b mda \"x %{rcptt}\"", &["1:17 E0506"]),
        ("action b mda \"x %{mda}\"", &["1:17 E0506"]),
        ("action b mda x wrapper w\nmda wrapper w \"y %{mda}\"", &[]),
        ("action b mda x wrapper w\nmda wrapper w y", &["2:15 E0203"]),
        ("action b lmtp /run/x rcpt-to", &[]),
        ("action b lmtp mx.example", &["1:15 E0507"]),
        ("action b lmtp mx.example:24", &[]),
        ("action b lmtp \"%{dest.domain}:24\"", &[]),
        ("action b expand-only alias { x => y } user z", &["1:39 E0610"]),
        ("action b forward-only", &[]),
        ("action b discard ttl 1d", &["1:18 E0202"]),
        ("action b mbox alias { x, y }", &["1:21 E0401"]),
        ("action b mbox alias root", &["1:21 E0401"]),
        ("action b mbox alias { x => \"|\" }", &["1:28 E0403"]),
        ("action b mbox alias { x => \"error:250 ok\" }", &["1:28 E0403"]),
        ("action b mbox alias { x => y } virtual { z => y }", &["1:32 E0604"]),
        ("action b mbox alias { x => y, x => z }", &["1:31 W0810"]),
        ("action b mbox alias { \"x@\" => y }", &["1:23 E0403"]),
        ("action b mbox userbase { x => 1:2:home }", &["1:31 E0403"]),
        ("action b relay backup domain { a.example = b.example }", &["1:23 E0602"]),
        ("action b relay host smtp://a.example domain { a.example = b.example }", &["1:38 E0602"]),
        ("action b relay domain { a.example = smtps://l@b.example }", &["1:23 E0606"]),
        ("action b relay domain { \"a b\" = b.example }", &["1:25 E0403"]),
        ("action b relay domain { a.example = b.example, c.example }", &["1:48 E0405"]),
        ("action b relay host smtps://l@b.example", &["1:21 E0606"]),
        ("action b relay host smtps://l@b.example auth { l = pass }", &["1:52 E0403"]),
        ("action b relay host { smtps://b.example, smpt://c.example }", &["1:42 E0504"]),
        ("action b relay helo a.example helo-src { 192.0.2.1 = b.example }", &["1:31 E0602"]),
        ("action b relay src pool nx", &["1:25 E0308"]),
        ("action b relay src pool", &["1:24 E0203"]),
        ("action b relay mail-from x", &["1:26 E0403"]),
        ("action b relay mail-from @x.example", &[]),
        ("action b relay shaping nx dkim nx", &["1:24 E0308", "1:32 E0308"]),
        ("action b relay pki nx ca nx filter nx", &["1:20 E0304", "1:26 E0304", "1:36 E0303"]),
        ("action b relay tls verify", &["1:20 E0202"]),
        ("action b relay srs", &["1:16 E0611"]),
        ("action b relay srs\nsrs key x\nsrs key backup y\nsrs ttl 4d", &[]),
        ("action b relay verp feedback", &[]),
        ("action b relay verp verp", &["1:21 E0601"]),
        ("action b discard feedback", &[]),
        ("action b forward-only feedback", &["1:23 E0610"]),
        ("action b mbox\naction b mbox", &["2:8 E0305"]),
    ];
    let whole: Vec<(String, &[&str])> =
        cases.iter().map(|(text, expected)| (format!("{text}\nmatch tag B action b\n"), *expected)).collect();
    check(&whole.iter().map(|(text, expected)| (text.as_str(), *expected)).collect::<Vec<_>>());
    check(&[("action b mbox\n", &["1:8 W0803"])]);
}

#[test]
fn rules() {
    check(&[
        ("match from auth action a\n", &[]),
        ("match from auth joe auth joe action a\n", &[]),
        ("match auth from any action a\n", &[]),
        ("match !auth !tls !cert from rdns action a\n", &[]),
        ("match cert { x } from cert regex \"(\" action a\n", &["1:34 E0508"]),
        ("match from rdns regex \"dyn\" for any action a\n", &[]),
        ("match from src \"local\" for any action a\n", &[]),
        ("match from src 10.0.0.0/33 for any action a\n", &["1:16 E0403"]),
        ("match !action a\n", &["1:8 E0203"]),
        ("match ! reject\n", &["1:9 E0203"]),
        ("match for domain <localnames> action a\n", &[]),
        ("match from src <localnames> action a\n", &["1:16 E0402"]),
        ("match for domain <getpwnam> action a\n", &["1:18 E0402"]),
        ("match from any for any action b\naction b relay virtual { x => y }\n", &["4:1 W0801"]),
        ("match from mail-from @x.example for any action b\naction b relay\n", &["1:1 W0802"]),
        ("match from any auth for any action b\naction b relay\n", &[]),
        ("match from auth for any action a\nmatch from auth joe for local action a\n", &["2:1 W0801"]),
    ]);
}

#[test]
fn rules_of_long_ago() {
    check(&[
        ("accept from any\n", &["1:1 W0811", "3:1 W0801"]),
        ("accept for any deliver mbox\n", &["1:24 E0203"]),
        ("accept for any relay via\n", &["1:25 E0203"]),
        ("accept for any relay via smtp+auth://l@x.example auth { l = u:p }\n", &["1:26 E0504"]),
        ("accept for any relay via smtp://x@y.example auth { x = u:p }\n", &["1:26 E0605"]),
        ("accept for any relay via smtp+tls://x.example\n", &["1:26 W0805"]),
        ("accept for any relay via x.example\n", &[]),
        ("accept for any relay helo { 1.2.3.4 = a.example } hostnames { 1.2.3.4 = b.example }\n", &["1:51 E0601"]),
        ("accept for any relay certificate x\n", &["1:22 W0804"]),
        ("accept for any relay certificate y\n", &["1:22 W0804", "1:34 E0701", "1:34 E0701"]),
        ("accept for virtual { x.example = y, z@x.example = w } deliver to maildir\n", &["1:12 W0804"]),
        ("accept for virtual { x.example = y } virtual { a = b } deliver to maildir\n", &["1:12 W0804", "1:38 E0601"]),
        ("accept form any for any\n", &["1:8 E0202"]),
        ("accept for anny\n", &["1:12 E0203"]),
        ("accept for any deliver to mbox as joe\n", &["1:32 E0204"]),
        ("accept for any deliver to mda \"x\" as joe expire 2d\n", &[]),
        ("accept for any deliver to lmtp /run/x rcpt-to as joe\n", &[]),
        ("accept for any forward-only\n", &[]),
        ("reject for any relay\n", &["1:16 W0810"]),
        ("reject from any\n", &["1:1 W0811", "3:1 W0801"]),
        ("reject from any sender \"@x.example\" for any\n", &[]),
        ("accept ! for any\n", &["1:8 E0204"]),
        ("accept tagged ! X from ! local for ! local relay\n", &[]),
        ("accept for any expire 4x\n", &["1:23 E0502"]),
        ("expire 1d\nqueue ttl 2d\n", &["2:7 E0601"]),
        ("size 10M\n", &["1:1 W0804"]),
        ("size 10X\n", &["1:1 W0804", "1:6 E0503"]),
        ("max-message-size 10M\nsmtp max-message-size 11M\n", &["2:6 E0601"]),
        ("limit session max-rcpt 5\nsmtp limit max-rcpt 6\n", &["2:12 E0601"]),
        ("limit sesion max-rcpt 5\n", &["1:7 E0203"]),
        ("limit scheduler max-inflight 5\n", &[]),
        ("limit mta inet4 max-conn-per-relay 5 max-conn-per-domain 3 task-hiwat 5\n", &["1:60 W0810"]),
        ("mta limit inet4\nshaping default { inet6 }\n", &["2:19 E0602"]),
        ("mta limit max-conn-per-host 5\nshaping default { connections-per-host 5 }\n", &["2:19 E0601"]),
        ("mta limit for domain x.example conn-delay-host 10\n", &[]),
        ("subaddressing-delimiter xx\n", &["1:25 E0509"]),
        ("ciphers HIGH\nsmtp ciphers LOW\n", &["2:6 E0601"]),
        ("bounce-warn 1d, 4h\n", &["1:17 E0203"]),
    ]);
}

#[test]
fn filters() {
    check(&[
        ("filter f phase connect match fcrdns junk\nlisten on lo0 filter f\n", &[]),
        ("filter f phase connect match junk\nlisten on lo0 filter f\n", &["1:1 E0203"]),
        ("filter f phase connect match rdns\nlisten on lo0 filter f\n", &["1:34 E0203"]),
        ("filter f phase conect match rdns junk\nlisten on lo0 filter f\n", &["1:16 E0203"]),
        ("filter f phase helo match mail-from x junk\nlisten on lo0 filter f\n", &["1:27 E0609"]),
        ("filter f phase mail-from match spf fail !dmarc pass junk\nlisten on lo0 filter f\n", &["1:42 E0609"]),
        ("filter f phase commit match dmarc fail !rcpt-to x reject \"550 no\"\nlisten on lo0 filter f\n", &[]),
        ("filter f phase connect match rdns reject \"250 ok\"\nlisten on lo0 filter f\n", &["1:42 E0505"]),
        ("filter f phase connect match rdns reject \"550 no\" junk\nlisten on lo0 filter f\n", &["1:51 E0204"]),
        ("filter f chain { f }\nlisten on lo0 filter f\n", &["1:18 E0608"]),
        ("filter f chain g\nlisten on lo0 filter f\n", &["1:16 E0203"]),
        ("filter f proc nx\nlisten on lo0 filter f\n", &["1:15 E0308"]),
        ("filter f proc p\nproc p \"x -y\" user u group g chroot /c\nlisten on lo0 filter f\n", &[]),
        ("filter f proc-exec \"x 'y\"\nlisten on lo0 filter f\n", &["1:23 E0101"]),
        ("filter f milter unix:/x timeout 5s on-failure bypass\nlisten on lo0 filter f\n", &[]),
        ("filter f milter inet:8891@localhost\nlisten on lo0 filter f\n", &[]),
        ("filter f milter tcp:8891\nlisten on lo0 filter f\n", &["1:17 E0507"]),
        ("filter f milter unix:/x on-failure stop\nlisten on lo0 filter f\n", &["1:36 E0203"]),
        ("filter f milter unix:/x\n", &["1:8 W0803"]),
        ("filter f milter unix:/x\nfilter f milter unix:/y\nlisten on lo0 filter f\n", &["2:8 E0305"]),
    ]);
}

#[test]
fn shapes_pools_and_limits() {
    check(&[
        ("shaping default { connections 20, rate 100/s, on reply regex \"^4\" throttle 50% }\n", &[]),
        ("shaping default { on reply regex \"^4\" }\n", &["1:19 E0203"]),
        ("shaping default { on reply regex \"^4\" throttle 5% suspend 1h }\n", &["1:51 E0602"]),
        ("shaping default { rate 100 }\n", &["1:24 E0509"]),
        ("shaping default { conections 1 }\n", &["1:19 E0202"]),
        ("shaping default { connections 1, connections 2 }\n", &["1:34 E0601"]),
        ("shaping default { connections 1 }\nshaping default { connections 2 }\n", &["2:19 E0601"]),
        ("shaping default { retry { } }\n", &["1:27 E0203"]),
        ("shaping default { retry { 1m, 5m } then 1h jitter 101% }\n", &["1:51 E0509"]),
        ("shaping default { warmup nx }\n", &["1:26 E0308"]),
        ("shaping x domain y.example { inet4 inet6 }\n", &["1:36 E0204"]),
        ("shaping x domain y.example { inet4, inet6 }\n", &["1:37 E0602"]),
        ("shaping x relay { tls dane }\n", &["1:9 W0803"]),
        ("shaping x { }\n", &["1:11 E0203"]),
        ("warmup w { 50/d 100/d }\n", &["1:17 E0204"]),
        ("warmup w { 50/d, 100/d }\n", &["1:8 W0803"]),
        ("warmup w { 10/h, 50/2d }\nshaping default { warmup w }\n", &["1:18 E0509"]),
        ("pool p { 192.0.2.1, x }\n", &["1:6 W0803", "1:21 E0403"]),
        ("pool p { 192.0.2.1, ::1, 192.0.2.1 helo x }\n", &["1:6 W0803", "1:26 E0601"]),
        ("pool p { 192.0.2.1 weight 0 }\n", &["1:27 E0509"]),
        ("pool p { 192.0.2.1 warmup nx } select cycle\n", &["1:6 W0803", "1:27 E0308"]),
        ("pool p { } select cycle\n", &["1:10 E0203"]),
        ("dkim sign s domain x.example selector a key /k\n", &["1:11 W0803"]),
        ("dkim sign s domain x.example selector a\n", &["1:11 E0203", "1:11 W0803"]),
        ("dkim sign s from <t>\ntable t { x.example = a:/k }\n", &["1:11 W0803"]),
        ("dkim sign s from <t> selector a\ntable t { x.example = a }\n", &["1:11 W0803", "1:22 E0602", "2:23 E0403"]),
        ("ratelimit r key source/24 rate 5/10s then slow 2s\nlisten on lo0 ratelimit r\n", &[]),
        ("ratelimit r key source/64 rate 5/10s\nlisten on lo0 ratelimit r\n", &["1:17 E0203"]),
        ("ratelimit r key user\nlisten on lo0 ratelimit r\n", &["1:11 E0203"]),
        ("ratelimit r key user rate 5/s then reject \"250 x\"\nlisten on lo0 ratelimit r\n", &["1:43 E0505"]),
        ("ratelimit r key user rate 5/s share s\nlisten on lo0 ratelimit r\n", &["1:37 E0308"]),
        ("share s redis redis://10.0.0.1 on-failure local\n", &["1:7 W0803"]),
        ("share s redis 10.0.0.1\n", &["1:7 W0803", "1:15 E0507"]),
        ("bounce classify x reply regex \"a\" for domain y.example treat throttle\n", &[]),
        ("bounce classify x reply regex \"(\" treat never\n", &["1:31 E0508", "1:41 E0203"]),
    ]);
}

#[test]
fn settings() {
    check(&[
        ("queue backend fs /var/q\nqueue compression gzip\nqueue encryption stdin\n", &[]),
        ("queue backend log /x\n", &["1:19 E0204"]),
        ("queue backend disk\n", &["1:15 E0203"]),
        ("queue compression lz4\n", &["1:19 E0204"]),
        ("srs key\n", &["1:8 E0203"]),
        ("srs key a\nsrs key b\n", &["2:5 E0601"]),
        ("bounce limit\n", &["1:13 E0203"]),
        ("bounce limit per-sender 5\n", &["1:25 E0509"]),
        ("bounce limit per-sender 5/h\nbounce limit total 50/h per-domain 9/d\n", &[]),
        ("bounce limit total 5/h\nbounce limit total 6/h\n", &["2:14 E0601"]),
        ("bounce limit per-user 5/h\n", &["1:14 E0510"]),
        ("admd \"a b\"\n", &["1:6 E0507"]),
        ("profile big\n", &["1:9 E0203"]),
        ("profile bulk\nprofile mx\n", &["2:1 E0601"]),
        ("http listen on 127.0.0.1 only { metrics, helth }\n", &["1:42 E0203"]),
        ("http listen on 127.0.0.1 pki nx\n", &["1:30 E0304"]),
        ("table t { a = \"$6$a$b\" }\nhttp listen on 127.0.0.1 auth <t>\n", &[]),
        ("table t { a = \"$6$a$b\" }\nhttp listen on 192.0.2.1 auth <t>\n", &["2:26 E0603"]),
        ("metrics hlog /x every 1m\nmetrics sites 0\n", &[]),
        ("metrics sites 2000\n", &[]),
        ("metrics sites 2001\n", &["1:15 E0509"]),
        ("metrics hlog /x every 0s\n", &["1:17 E0203"]),
        ("log to syslog\nlog to syslog format xml\n", &["2:22 E0203"]),
        ("log to file\n", &["1:12 E0203"]),
        ("control socket /x mode 999\n", &["1:24 E0509"]),
        ("scheduler limit max-inflight 5 max-evp-batch-size 3\n", &["1:32 W0810"]),
        ("scheduler backend null\nmda limit max-session 5 task-lowat 3\n", &["2:25 W0810"]),
        ("mta max-deferred 0\n", &["1:18 E0509"]),
        ("mta allow-exchangers { 10.0.0.0/8, fd00::/8, 192.0.2.1 }\n", &[]),
        ("mta allow-exchangers any\nmta allow-exchangers 10.0.0.0/8\n", &["2:5 E0601"]),
        ("mta allow-exchangers { 10.0.0.0/8, lan }\n", &["1:36 E0203"]),
        ("smtp limit timeout 5\n", &[]),
        ("shards 2 cores 1\n", &["1:10 E0203"]),
        ("store { path /x, path /y }\n", &["1:18 E0601"]),
        ("mda wrapper w \"x %{mda}\"\n", &["1:13 W0803"]),
    ]);
}

#[test]
fn tables() {
    check(&[
        ("table t db:/nx\nmatch for domain <t> action a\n", &["1:9 E0701"]),
        ("table t proc:/c\nmatch for domain <t> action a\n", &[]),
        ("table t sqlite:/nx\nmatch for domain <t> action a\n", &["1:9 E0701"]),
        ("table t foo:/c\nmatch for domain <t> action a\n", &["1:9 E0307"]),
        ("table t db:/c cache 5m negative 1s stale 1h timeout 2s pool 9 manual\nmatch for domain <t> action a\n", &[]),
        ("table t { x } cache 5m pool 2\nmatch for domain <t> action a\n", &["1:15 W0810"]),
        ("table t { x } cash 5m\nmatch for domain <t> action a\n", &["1:15 E0202"]),
        ("table t db:/c\nmatch for rcpt-to regex <t> action a\n", &["2:25 E0404"]),
        ("table t { x => y }\nmatch for domain <t> action a\n", &[]),
        ("table t { x => y, z@x => w }\nmatch for domain <t> action a\n", &[]),
        ("table t { \"z@x\" }\nmatch for domain <t> action a\n", &["1:11 E0403"]),
        (
            "table alises { x => y }\naction b mbox alias <aliases>\nmatch tag B action b\n",
            &["1:7 W0803", "2:21 E0301"],
        ),
        ("table <x> { y }\nmatch for domain <x> action a\n", &[]),
        ("table <getpwnam> { y }\n", &["1:7 E0306"]),
    ]);
}

/// Files with a mode and a date.
struct Disk(Vec<(&'static str, &'static str, u32, u64)>);

impl Source for Disk {
    fn read(&self, path: &Path, _bytes_max: u64) -> std::io::Result<Vec<u8>> {
        let found = self.0.iter().find(|(name, ..)| path == Path::new(name));
        found.map(|(_, text, ..)| text.as_bytes().to_vec()).ok_or_else(|| std::io::ErrorKind::NotFound.into())
    }

    fn names(&self, _directory: &Path) -> std::io::Result<Vec<String>> {
        Ok(Vec::new())
    }

    fn exists(&self, path: &Path) -> Exists {
        match self.0.iter().find(|(name, ..)| path == Path::new(name)) {
            Some((_, _, mode, modified)) => Exists::File { mode: *mode, modified: Some(*modified) },
            None => Exists::No,
        }
    }
}

#[test]
fn private_keys_and_stale_databases() {
    let text = "pki x cert /c key /k\nlisten on lo0 tls pki x\ntable d db:/d.db\naction a discard\n\
                dkim sign s domain x.example selector a key /k\naction b relay dkim s\nmatch for any action b\nmatch for domain <d> action a\n";
    let with = |key_mode: u32, text_changed: u64| {
        let disk = Disk(vec![
            ("c", text, 0o644, 0),
            ("/c", "", 0o644, 0),
            ("/k", "", key_mode, 0),
            ("/d.db", "", 0o644, 10),
            ("/d", "", 0o644, text_changed),
        ]);
        match load(&disk, Path::new("c"), &Options::default()) {
            Ok((_, reports)) | Err(reports) => {
                let one = |r: &ringpost_conf::Report| format!("{} {} {}", reports.place(r).line, r.code, r.message);
                reports.iter().map(one).filter(|line| !line.contains("W0801")).collect::<Vec<_>>()
            }
        }
    };
    let none: [&str; 0] = [];
    assert_eq!(with(0o600, 10), none);
    assert_eq!(with(0o640, 5), ["1 E0702 `/k` can be read by others", "5 E0702 `/k` can be read by others"]);
    assert_eq!(with(0o400, 11), ["3 W0814 `/d` is newer than `/d.db`"]);
}
