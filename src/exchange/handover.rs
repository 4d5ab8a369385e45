//! What the gate of a cluster hands over to the gate of the listener in the VM that both share.
//!
//! A word in the filter state [`Credentials`](crate::host::FilterState::Credentials) names the handover of a request. So
//! the gate of the cluster finds it, and the gate of the listener, which keeps it, asks the host for nothing. Each worker
//! has a VM of its own, and a gate in another VM finds no handover: it uses the filter state
//! [`Upstream`](crate::host::FilterState::Upstream).

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};

use crate::upstream_tls::{PolicyRule, UpstreamHost, Verdict};

/// Begins the word that names the handover of a request. No credential has a `+` in its name.
const HANDOVER: &str = "+handover=";

/// The handovers of one VM.
#[derive(Debug, Default)]
pub struct Handovers {
    /// The time of the first handover in Unix nanoseconds, which tells this VM from others on the same thread.
    vm: OnceCell<u64>,
    last: Cell<u64>,
    has_gate: Cell<bool>,
    /// In ascending order of their numbers.
    open: RefCell<Vec<(u64, Weak<Handover>)>>,
}

/// The handover of one request.
#[derive(Debug)]
pub struct Handover {
    number: u64,
    attempts: Cell<u64>,
    concluded: Cell<Option<Concluded>>,
    response: RefCell<Option<(u64, Response)>>,
    handovers: Rc<Handovers>,
}

/// The verdict on the last attempt that was concluded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concluded {
    /// The number of the attempt, from 1.
    pub attempt: u64,
    /// The verdict.
    pub verdict: Verdict,
    /// Whether a byte of the request may have been sent.
    pub sent: bool,
}

/// An attempt whose response is on its way to the client.
#[derive(Debug)]
pub struct Response {
    /// The verdict on its connection.
    pub verdict: Verdict,
    /// The host whose rules the connection was checked by; `None` if nothing was checked.
    pub upstream: Option<UpstreamHost<'static>>,
    /// The rules that the configuration adds to the policy.
    pub rules: Rc<[PolicyRule]>,
}

impl Handovers {
    /// Records that this VM has the gate of a cluster.
    pub fn add_gate(&self) {
        self.has_gate.set(true);
    }

    /// Opens the handover of a request. `None` if no gate of a cluster could use it.
    pub fn open(self: &Rc<Self>, now_ns: u64) -> Option<Rc<Handover>> {
        if !self.has_gate.get() {
            return None;
        }
        let number = self.last.get().checked_add(1)?;
        self.last.set(number);
        self.vm.get_or_init(|| now_ns);
        let handover = Rc::new(Handover {
            number,
            attempts: Cell::default(),
            concluded: Cell::default(),
            response: RefCell::default(),
            handovers: Rc::clone(self),
        });
        self.open.try_borrow_mut().ok()?.push((number, Rc::downgrade(&handover)));
        Some(handover)
    }

    /// The handover that a filter state names; `None` if it names none of this VM.
    pub fn find(&self, words: &str) -> Option<Rc<Handover>> {
        let name = words.split(' ').find_map(|word| word.strip_prefix(HANDOVER))?;
        let (vm, number) = name.split_once('-')?;
        if vm.parse().ok().as_ref() != self.vm.get() {
            return None;
        }
        let (open, number) = (self.open.try_borrow().ok()?, number.parse().ok()?);
        let place = open.binary_search_by_key(&number, |(number, _)| *number).ok()?;
        open.get(place)?.1.upgrade()
    }
}

impl Handover {
    /// The word that names it.
    pub fn word(&self) -> String {
        let vm = self.handovers.vm.get().copied().unwrap_or_default();
        format!("{HANDOVER}{vm}-{}", self.number)
    }

    /// Counts an attempt, and returns its number, from 1.
    pub fn begin(&self) -> u64 {
        let attempt = self.attempts.get().saturating_add(1);
        self.attempts.set(attempt);
        attempt
    }

    /// How many attempts were counted.
    pub fn attempts(&self) -> u64 {
        self.attempts.get()
    }

    /// Records the verdict on an attempt.
    pub fn conclude(&self, concluded: Concluded) {
        self.concluded.set(Some(concluded));
    }

    /// The verdict on the last attempt that was concluded.
    pub fn concluded(&self) -> Option<Concluded> {
        self.concluded.get()
    }

    /// Records that the response to an attempt is on its way to the client.
    pub fn respond(&self, attempt: u64, response: Response) {
        if let Ok(mut slot) = self.response.try_borrow_mut() {
            *slot = Some((attempt, response));
        }
    }

    /// Records the end of an attempt. If the proxy dropped its response, e.g. to retry the request, that is no longer the
    /// response of the request.
    pub fn end(&self, attempt: u64) {
        if let Ok(mut slot) = self.response.try_borrow_mut()
            && slot.as_ref().is_some_and(|(of, _)| *of == attempt)
        {
            *slot = None;
        }
    }

    /// Looks at the response that is on its way to the client; `None` if it is not that of a counted attempt.
    pub fn response<T>(&self, look: impl FnOnce(&Response) -> T) -> Option<T> {
        self.response.try_borrow().ok()?.as_ref().map(|(_, response)| look(response))
    }
}

impl Response {
    /// Whether the connection was checked by the same rules for this host. The policy is the same for a whole VM.
    pub fn is_checked_for(&self, host: &UpstreamHost<'_>, rules: &[PolicyRule]) -> bool {
        self.upstream.as_ref() == Some(host) && *self.rules == *rules
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        if let Ok(mut open) = self.handovers.open.try_borrow_mut()
            && let Ok(place) = open.binary_search_by_key(&self.number, |(number, _)| *number)
        {
            open.remove(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handovers() -> Rc<Handovers> {
        let handovers = Rc::new(Handovers::default());
        handovers.add_gate();
        handovers
    }

    fn verified() -> Response {
        let upstream = Some(UpstreamHost::parse(b"a.example").into_owned());
        Response { verdict: Verdict::Verified, upstream, rules: Rc::from([]) }
    }

    #[test]
    fn a_handover_is_found_by_its_word_in_its_vm_while_the_request_lasts() {
        let (vm, other) = (handovers(), handovers());
        let handover = vm.open(7).unwrap();
        let later = vm.open(9).unwrap();
        assert_eq!(
            (handover.word(), later.word()),
            ("+handover=7-1".into(), "+handover=7-2".into())
        );
        let found = vm.find(&format!("openai {} corp", handover.word())).unwrap();
        assert!(Rc::ptr_eq(&found, &handover));
        let of_other = other.open(8).unwrap();
        assert!(vm.find(&of_other.word()).is_none() && other.find(&handover.word()).is_none());
        for words in ["", "openai", "+handover=", "+handover=7", "+handover=7-3", "handover=7-1"] {
            assert!(vm.find(words).is_none(), "{words}");
        }
        let word = later.word();
        drop(later);
        assert!(vm.find(&word).is_none() && vm.open.borrow().len() == 1);
    }

    #[test]
    fn without_a_gate_of_a_cluster_nothing_is_handed_over() {
        let vm = Rc::new(Handovers::default());
        assert!(vm.open(7).is_none());
    }

    #[test]
    fn the_response_of_an_attempt_that_has_ended_is_not_that_of_the_request() {
        let vm = handovers();
        let handover = vm.open(7).unwrap();
        let verdict = || handover.response(|response| response.verdict);
        let (first, second) = (handover.begin(), handover.begin());
        assert_eq!((first, second, handover.attempts(), verdict()), (1, 2, 2, None));
        handover.respond(first, verified());
        handover.end(second);
        assert_eq!(verdict(), Some(Verdict::Verified));
        handover.end(first);
        assert_eq!(verdict(), None);
    }

    #[test]
    fn a_check_is_for_one_host_and_for_its_rules() {
        let rule = |host: &str| PolicyRule {
            host: crate::upstream_tls::UpstreamPattern::parse(host).unwrap(),
            min_version: None,
            pins: Box::default(),
            client_certificate: false,
            skip: None,
        };
        let response = Response { rules: Rc::from([rule("a.example")]), ..verified() };
        let host = |name: &'static str| UpstreamHost::parse(name.as_bytes());
        assert!(response.is_checked_for(&host("A.example.:443"), &[rule("a.example")]));
        assert!(!response.is_checked_for(&host("b.example"), &[rule("a.example")]));
        assert!(!response.is_checked_for(&host("a.example"), &[rule("b.example")]));
        assert!(!response.is_checked_for(&host("a.example"), &[]));
        let unchecked = Response { upstream: None, ..verified() };
        assert!(!unchecked.is_checked_for(&host("a.example"), &[]));
    }
}
