//! Exchangers and names of clients, from a zone.

use super::*;

const ZONE: &str = "\
    two.test 60 MX 20 b.two.test\n\
    two.test 90 MX 10 a.two.test\n\
    two.test MX 5 gone.two.test\n\
    a.two.test 30 A 192.0.2.1\n\
    a.two.test AAAA 2001:db8::1\n\
    b.two.test 300 A 192.0.2.2\n\
    bare.test A 192.0.2.3\n\
    null.test MX 0 .\n\
    empty.test TXT x\n\
    dead.test MX 10 nowhere.test\n\
    literal.test MX 10 192.0.2.9\n";

fn ask(domain: &str) -> MxAnswer {
    let names = Arc::new(Names::Zone(Zone::parse(ZONE).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(exchangers(&names, domain, None))
}

fn hosts(answer: MxAnswer) -> Vec<(u16, String, usize)> {
    match answer {
        MxAnswer::Hosts { hosts, .. } => {
            hosts.into_iter().map(|host| (host.preference, host.name, host.addresses.len())).collect()
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn exchangers_come_by_preference_without_those_that_have_no_address() {
    let answer = ask("Two.test.");
    assert!(matches!(&answer, MxAnswer::Hosts { ttl, .. } if *ttl == Duration::from_secs(30)));
    assert_eq!(hosts(answer), [(10, "a.two.test".into(), 2), (20, "b.two.test".into(), 1)]);
}

#[test]
fn a_domain_without_mx_is_its_own_exchanger() {
    assert_eq!(hosts(ask("bare.test")), [(0, "bare.test".into(), 1)]);
    assert_eq!(hosts(ask("[192.0.2.7]")), [(0, "[192.0.2.7]".into(), 1)]);
    assert_eq!(hosts(ask("[IPv6:2001:db8::7]")).len(), 1);
    assert_eq!(hosts(ask("literal.test")), [(10, "192.0.2.9".into(), 1)]);
}

#[test]
fn null_mx_missing_names_and_failures_are_told_apart() {
    assert_eq!(ask("null.test"), MxAnswer::NullMx);
    for name in ["missing.test", "empty.test", "dead.test"] {
        assert_eq!(ask(name), MxAnswer::NoSuchDomain, "{name}");
    }
    let names = Arc::new(Names::Nowhere("no resolver".into()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    assert_eq!(
        runtime.block_on(exchangers(&names, "two.test", None)),
        MxAnswer::Temporary("two.test: no resolver".into())
    );
}

#[test]
fn a_client_has_the_name_that_has_his_address() {
    let zone = "\
        1.2.0.192.in-addr.arpa PTR liar.test\n\
        1.2.0.192.in-addr.arpa 20 PTR Mail.One.test.\n\
        mail.one.test A 192.0.2.1\n\
        mail.one.test AAAA 2001:db8::1\n\
        liar.test A 192.0.2.2\n\
        2.2.0.192.in-addr.arpa PTR mail.one.test\n\
        4.2.0.192.in-addr.arpa SERVFAIL\n\
        5.2.0.192.in-addr.arpa PTR broken.test\n\
        broken.test SERVFAIL\n\
        1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa PTR mail.one.test\n";
    let names = Arc::new(Names::Zone(Zone::parse(zone).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let ask = |text: &str| runtime.block_on(client_name(&names, text.parse().unwrap()));
    let known = |seconds| NameAnswer::Known { name: "mail.one.test".into(), ttl: Duration::from_secs(seconds) };
    assert_eq!(ask("192.0.2.1"), known(20));
    assert_eq!(ask("::ffff:192.0.2.1"), known(20));
    assert_eq!(ask("2001:db8::1"), known(60));
    assert_eq!(ask("192.0.2.2"), NameAnswer::None, "the name has another address");
    assert_eq!(ask("192.0.2.3"), NameAnswer::None);
    assert_eq!(ask("192.0.2.4"), NameAnswer::Temporary("192.0.2.4: SERVFAIL".into()));
    assert_eq!(ask("192.0.2.5"), NameAnswer::Temporary("broken.test: SERVFAIL".into()));
    let nowhere = Arc::new(Names::Nowhere("no resolver".into()));
    let answer = runtime.block_on(client_name(&nowhere, [192, 0, 2, 1].into()));
    assert_eq!(answer, NameAnswer::Temporary("192.0.2.1: no resolver".into()));
}

#[test]
fn a_failed_exchanger_is_not_a_missing_one() {
    let records = vec![(10, "a".to_owned()), (20, "b".to_owned())];
    let failed = || Some((Found::Failed("SERVFAIL".into()), Dane::Absent));
    let none = Some((Found::NoName, Dane::Absent));
    let answer = gather("d", records.clone(), vec![failed(), none], Duration::ZERO);
    assert!(matches!(answer, MxAnswer::Temporary(_)));
    let there = Some((Found::Records(vec![IpAddr::from([192, 0, 2, 1])], LOOKUP), Dane::Absent));
    assert_eq!(hosts(gather("d", records, vec![failed(), there], LOOKUP)), [(20, "b".into(), 1)]);
}

#[test]
fn of_a_host_with_very_many_addresses_some_of_each_family_are_kept() {
    let mut zone = "many.test MX 10 mx.many.test\n".to_owned();
    for number in 0..1000 {
        zone += &format!("mx.many.test A 192.0.{}.{}\n", number / 250, number % 250);
        zone += &format!("mx.many.test AAAA 2001:db8::{number:x}\n");
    }
    let names = Arc::new(Names::Zone(Zone::parse(&zone).unwrap()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for answer in [
        runtime.block_on(exchangers(&names, "many.test", None)),
        runtime.block_on(addresses(&names, "mx.many.test", None)),
    ] {
        let MxAnswer::Hosts { hosts, .. } = answer else { panic!("{answer:?}") };
        let count = |is_ipv4| hosts[0].addresses.iter().filter(|address| address.is_ipv4() == is_ipv4).count();
        assert_eq!((count(true), count(false)), (HOST_ADDRESSES, HOST_ADDRESSES));
    }
}
