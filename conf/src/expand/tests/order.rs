//! Answers may come in any order.

use proptest::prelude::*;

use super::*;

/// Some users, lists and failures, all of them remote.
fn world() -> Setup {
    let remote = |setup: Setup| setup.with(|action| action.mapping = Some(Mapping::Alias(Keyed::Remote(TableId(0)))));
    let setup = Setup::new().table("db").table("d").rule("mbox", domains(&["poolp.org"]), ActionKind::Mbox);
    let mut setup = remote(setup).rule("other", Dest::Any, relay()).rule("out", Dest::Any, relay());
    setup.config.matches[1].dest.1 = Dest::Domain(Among::Remote { table: TableId(1), service: ServiceKind::Domain });
    let found = |text: &str| Told::Found(text.into());
    setup
        .says("db alias all", found("staff, gilles, x@a.example, y@b.example, /var/x, :include:/l"))
        .says("db alias staff", found("gilles, eric, chl+x, all"))
        .says("db alias bad", found("gilles, broken, nobody, y@c.example"))
        .says("db alias broken", Told::Failed("down".into()))
        .says("db alias later", found("gilles, broken"))
        .says("d domain a.example", found("1"))
        .says("include /l", found("z@a.example\nall@poolp.org\n"))
        .forward("gilles", "\\gilles, eric@b.example")
        .forward("eric", "chl, |/bin/x")
}

proptest! {
    #[test]
    fn the_order_of_answers_changes_nothing(
        who in prop::sample::select(vec!["all", "staff", "bad", "later", "gilles", "nobody"]),
        picks in prop::collection::vec(any::<prop::sample::Index>(), 1..200),
    ) {
        let setup = world();
        let recipient = format!("{who}@poolp.org");
        let expected = setup.noted(&recipient);
        let outlines = Outlines::new(&setup.config);
        let mut expansion = Expansion::new(&setup.config, &outlines, setup.facts(&recipient));
        let mut picks = picks.iter().cycle();
        // One answer at a time, whichever comes; some come before they are asked for again.
        let mut steps = 0;
        let outcome = loop {
            steps += 1;
            prop_assert!(steps < 1000);
            match expansion.step() {
                Step::Done(outcome) => break outcome,
                Step::Needs(needs) => {
                    let question = picks.next().expect("a cycle").get(&needs).clone();
                    let told = setup.answer(&question);
                    expansion.tell(question, told);
                }
            }
        };
        prop_assert_eq!((setup.shown(&outcome), expansion.take_notes()), expected);
    }
}
