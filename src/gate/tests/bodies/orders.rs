//! Every order of callbacks.

use super::super::*;
use super::worker::*;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Headers,
    Part,
    Last,
    Trailers,
    Response,
    ResponsePart,
    ResponseLast,
    Log,
}

const STEPS: [Step; 8] = [
    Step::Headers,
    Step::Part,
    Step::Last,
    Step::Trailers,
    Step::Response,
    Step::ResponsePart,
    Step::ResponseLast,
    Step::Log,
];

/// Whatever a host does, nothing is sent but a body that was read to its end and allowed; every request has one line; and
/// a reservation is settled once.
#[test]
fn no_order_of_callbacks_sends_what_was_not_judged() {
    let after = |first: &[Step], length: usize| {
        (0..length).fold(vec![first.to_vec()], |shorter, _| {
            let longer = |order: Vec<Step>| STEPS.map(|step| [order.as_slice(), &[step]].concat());
            shorter.into_iter().flat_map(longer).collect()
        })
    };
    let whole = [Step::Headers, Step::Part, Step::Last];
    let orders = [after(&[], 4), after(&whole[..1], 3), after(&whole, 3)].concat();
    // A gate is expensive, and remembers nothing of a request but its counts.
    let worker = Worker::new(&CONFIG.replace("1000,", "1000000000,"));
    let mut used = worker.used();
    for order in orders {
        for parts in [GOOD, OTHER].map(|body| <[&str; 2]>::from(body.split_at(20))) {
            play(&worker, &order, parts);
            let before = std::mem::replace(&mut used, worker.used());
            // It is charged what it used, what it reserved while it is open, or nothing.
            assert!([0, 7, 40].contains(&(used - before)), "{order:?} {parts:?}");
        }
    }
}

/// Plays the callbacks of one request.
fn play(worker: &Worker, order: &[Step], parts: [&str; 2]) {
    let (gate, host) = (&worker.gate, worker.host(&[]));
    let mut exchange = Exchange::default();
    let (mut came, mut lines, mut coming) = (String::new(), 0, parts.into_iter());
    host.memory.trailers.replace(Some(Vec::new()));
    for step in order {
        let action = match step {
            Step::Headers => gate.on_request_headers(&host, &mut exchange, Opening::default()),
            Step::Part | Step::Last => {
                let part = coming.next().unwrap_or_default();
                came.push_str(part);
                host.memory.request_body.push(part);
                let bytes = host.memory.request_body.arrive().unwrap().bytes;
                let bytes = u64::try_from(bytes).unwrap();
                gate.on_request_body(&host, &mut exchange, bytes, *step == Step::Last)
            }
            Step::Trailers => gate.on_request_trailers(&host, &mut exchange),
            Step::Response => {
                host.memory.status.set(Some(200));
                gate.on_response_headers(&host, &mut exchange);
                Action::Pause
            }
            Step::ResponsePart | Step::ResponseLast => {
                host.memory.response_body.push(USED_7);
                let bytes = host.memory.response_body.arrive().unwrap().bytes;
                let bytes = u64::try_from(bytes).unwrap();
                let is_last = *step == Step::ResponseLast;
                gate.on_response_body(&host, &mut exchange, bytes, is_last);
                host.memory.response_body.pass();
                Action::Pause
            }
            Step::Log => {
                let was_done = matches!(exchange, Exchange::Done);
                gate.on_log(&host, &mut exchange);
                lines += usize::from(!was_done);
                Action::Pause
            }
        };
        if action == Action::Continue {
            host.memory.request_body.pass();
            let passed = host.memory.request_body.passed();
            let is_good = passed.is_empty() || came.starts_with(GOOD);
            assert!(is_good, "{order:?} {came}");
        }
    }
    let log = host.memory.log.borrow();
    let written = log.iter().filter(|(_, line)| line.starts_with("{\"vkey\"")).count();
    assert_eq!(written, lines, "{order:?}");
}
