//! Attempts whose connection is not up yet.

use super::*;

#[test]
fn an_attempt_waits_for_its_connection_and_the_tick_for_the_last() {
    let bench = Bench::new();
    for id in [1, 2] {
        assert_eq!(bench.send(id, Facts::connecting("api.openai.com")), Action::Pause);
        assert_eq!(bench.outcome(id), (None, 0, 0));
        assert_eq!(bench.body(id), Action::Pause);
    }
    assert_eq!(*bench.proxy.ticks.borrow(), [(1, 1)], "set once, by the first");
    bench.tick();
    assert_eq!((bench.outcome(1), bench.outcome(2)), ((None, 0, 0), (None, 0, 0)));
    bench.proxy.show(1, Facts::good());
    bench.tick();
    bench.passed(1, "verified", 1);
    assert_eq!(bench.outcome(2), (None, 0, 0));
    assert_eq!(bench.proxy.ticks.borrow().len(), 1);
    bench.proxy.show(2, Facts::plaintext());
    bench.tick();
    bench.refused(2, Reason::UpstreamPlaintext);
    assert_eq!(bench.proxy.ticks.borrow()[1..], [(ROOT, 0)]);
    // Envoy crashes on a second reply.
    for _ in 0..3 {
        bench.tick();
        for (_, attempt) in bench.attempts.borrow_mut().iter_mut() {
            assert_eq!(bench.gate.on_tick(&bench.proxy, attempt), Action::Continue);
        }
    }
    bench.passed(1, "verified", 1);
    bench.refused(2, Reason::UpstreamPlaintext);
    bench.send(3, Facts::connecting("api.openai.com"));
    assert_eq!(bench.proxy.ticks.borrow()[2..], [(ROOT, 0), (ROOT, 0), (ROOT, 0), (3, 1)]);
}

#[test]
fn an_attempt_waits_until_its_deadline_and_no_nanosecond_longer() {
    for (members, secs) in [("", 10), (r#", "deadline": "1s""#, 1)] {
        let bench = Bench::with(members);
        bench.at(0, 7);
        bench.send(1, Facts::connecting("api.openai.com"));
        bench.at(secs, 6);
        bench.tick();
        assert_eq!(bench.outcome(1), (None, 0, 0));
        bench.at(secs, 7);
        bench.tick();
        bench.refused(1, Reason::UpstreamUnproven);
    }
}

#[test]
fn a_connection_that_is_up_at_the_deadline_is_judged() {
    let bench = Bench::new();
    bench.send(1, Facts::connecting("api.openai.com"));
    bench.at(11, 0);
    bench.proxy.show(1, Facts::good());
    bench.tick();
    bench.passed(1, "verified", 1);
}

#[test]
fn nothing_waits_where_there_is_no_clock() {
    for (before, after) in [(None, None), (None, Some(START_NS)), (Some(START_NS), None)] {
        let bench = Bench::new();
        bench.proxy.memory.now_ns.set(before);
        bench.send(1, Facts::connecting("api.openai.com"));
        bench.proxy.memory.now_ns.set(after);
        bench.tick();
        bench.refused(1, Reason::UpstreamUnproven);
    }
}

#[test]
fn what_has_ended_waits_no_longer() {
    let bench = Bench::new();
    for id in 1..=3 {
        bench.send(id, Facts::connecting("api.openai.com"));
    }
    bench.gate.forget(1);
    bench.proxy.memory.gone.borrow_mut().push(2);
    bench.attempts.borrow_mut().remove(&3);
    for id in 1..=3 {
        bench.proxy.show(id, Facts::good());
    }
    bench.tick();
    for id in 1..=3 {
        assert_eq!(bench.outcome(id), (None, 0, 0), "{id}");
    }
    assert_eq!(*bench.proxy.ticks.borrow(), [(1, 1), (ROOT, 0)]);
    // The number of a context is given out again.
    bench.proxy.memory.gone.take();
    bench.send(2, Facts::connecting("api.openai.com"));
    assert_eq!(bench.proxy.ticks.borrow()[2..], [(2, 1)]);
    bench.proxy.show(2, Facts::good());
    bench.tick();
    bench.passed(2, "verified", 1);
}

#[test]
fn an_attempt_that_nobody_would_look_at_is_refused() {
    let bench = Bench::new();
    bench.proxy.memory.failing_edits.set(Some(HostError(12)));
    for id in [1, 2] {
        assert_eq!(bench.send(id, Facts::connecting("api.openai.com")), Action::Pause);
        bench.refused(id, Reason::UpstreamUnproven);
    }
    bench.proxy.memory.failing_edits.set(None);
    bench.send(3, Facts::connecting("api.openai.com"));
    assert_eq!(*bench.proxy.ticks.borrow(), [(1, 1), (2, 1), (3, 1)], "each tries again");
    bench.tick();
    bench.refused(1, Reason::UpstreamUnproven);
}

#[test]
fn what_a_host_cannot_do_is_in_its_log() {
    let bench = Bench::new();
    bench.send(1, Facts::connecting("api.openai.com"));
    bench.proxy.show(1, Facts::good());
    bench.proxy.memory.failing_edits.set(Some(HostError(12)));
    bench.tick();
    let held = (Level::Error, "vkey: could not resume a request: host status 12".to_owned());
    assert_eq!(bench.proxy.memory.log.take(), [held]);
    bench.proxy.memory.failing_edits.set(None);

    bench.proxy.mute.set(true);
    assert_eq!(bench.send(2, Facts::plaintext().cluster("plain")), Action::Pause);
    assert_eq!(bench.body(2), Action::Pause);
    let texts: Vec<String> =
        bench.proxy.memory.log.take().into_iter().map(|(_, text)| text).collect();
    assert_eq!(
        texts,
        [
            r#"vkey: cluster "plain" breaks the policy: upstream_plaintext"#,
            "vkey: could not set filter state vkey.upstream: host status 1",
            "vkey: could not send a reply: host status 1",
        ]
    );
    assert_eq!(bench.send(3, Facts::good()), Action::Continue);
}

/// A handshake far away is still looked for every millisecond; one that never ends is not.
#[test]
fn the_tick_slows_down_when_nothing_comes_up_for_a_while() {
    let bench = Bench::new();
    bench.send(1, Facts::connecting("api.openai.com"));
    for _ in 1..FAST_TICKS {
        bench.tick();
    }
    assert_eq!(*bench.proxy.ticks.borrow(), [(1, TICK_MILLIS)]);
    bench.tick();
    bench.tick();
    assert_eq!(bench.proxy.ticks.borrow()[1..], [(ROOT, SLOW_TICK_MILLIS)], "once");
    // Whoever comes then does not wait for the slow one.
    bench.send(2, Facts::connecting("api.openai.com"));
    assert_eq!(bench.proxy.ticks.borrow()[2..], [(2, TICK_MILLIS)]);
    bench.proxy.show(2, Facts::good());
    bench.tick();
    bench.passed(2, "verified", 1);
    assert_eq!(bench.proxy.ticks.borrow().len(), 3, "the first still waits");
}

/// What one tick concludes, Envoy carries out nested in each other.
#[test]
fn a_tick_concludes_few_and_the_next_goes_on() {
    let bench = Bench::new();
    let ids = 1..=2 * u32::try_from(MAX_CONCLUDED).unwrap();
    for id in ids.clone() {
        bench.send(id, Facts::connecting("api.openai.com"));
    }
    for id in ids.clone() {
        bench.proxy.show(id, Facts::good());
    }
    let passed = || ids.clone().filter(|id| bench.outcome(*id).2 == 1).count();
    for ticks in 1..=2 {
        bench.tick();
        assert_eq!(passed(), ticks * MAX_CONCLUDED);
    }
}
