//! A client on one connection, which sends one request after the other.

use std::io::{self, ErrorKind};

use crate::cases::{Ask, Case, Credential};
use crate::keys::Issuer;
use crate::streams::{Stream, Streams, check_usage, usage_request};
use crate::supply::Supply;
use crate::support::{Connection, Envoy, Request, Response};

/// How often the client goes on waiting where it gave up otherwise: callgrind makes Envoy slow.
const LONG_WAITS: usize = 20;

pub(crate) struct Client<'a> {
    supply: Supply<'a>,
    streams: &'a Streams,
    connection: Connection,
    /// How many streams of a chat it has received.
    received: u64,
}

impl<'a> Client<'a> {
    pub(crate) fn new(
        issuer: &'a Issuer,
        streams: &'a Streams,
        envoy: &Envoy,
        case: &Case,
    ) -> Self {
        let connection = Connection::open(envoy.listener(case.listener));
        Self { supply: Supply::new(issuer), streams, connection, received: 0 }
    }

    /// One request, whose answer must have that status.
    ///
    /// # Errors
    ///
    /// When the answer is another one, or none comes.
    pub(crate) fn send(&mut self, ask: &Ask, expected: u16) -> Result<(), String> {
        let mut request = self.supply.request(ask);
        let mut stream = ask.chat.map(|chat| self.streams.expect(chat));
        if let Some(stream) = &stream {
            request = stream.named(request);
        }
        let mut step = || stream.iter_mut().for_each(Stream::go_on);
        let answer = self.answer(&request, &mut step).map_err(|error| error.to_string())?;
        if answer.status != expected {
            let (path, status, text) = (ask.path, answer.status, answer.text());
            return Err(format!("{path} is answered with {status} and not {expected}: {text}"));
        }
        match ask.chat.zip(stream) {
            Some((chat, stream)) => {
                self.received += 1;
                chat.check(&stream, &answer)
            }
            None => Ok(()),
        }
    }

    /// The request of a case, as often.
    ///
    /// # Errors
    ///
    /// As [`Client::send`].
    pub(crate) fn repeat(&mut self, ask: &Ask, expected: u16, times: usize) -> Result<(), String> {
        (0..times).try_for_each(|_| self.send(ask, expected))
    }

    /// Checks that the streams so far were charged to the key of a request, if they are to be.
    ///
    /// # Errors
    ///
    /// When they were not.
    pub(crate) fn check_charge(&mut self, ask: &Ask) -> Result<(), String> {
        let Credential::One(key) = &ask.credential else { return Ok(()) };
        if !ask.chat.is_some_and(|chat| chat.is_metered) {
            return Ok(());
        }
        let answer = self.answer(&usage_request().bearer(key), &mut || {});
        let answer = answer.map_err(|error| error.to_string())?;
        check_usage(&answer.json(), self.received)
    }

    /// The first answer waits until the worker has made its VM. `step` is called as it comes.
    fn answer(&mut self, request: &Request, step: &mut dyn FnMut()) -> io::Result<Response> {
        self.connection.send_raw(&request.encode())?;
        let mut answer = self.connection.read_stepwise(step);
        for _ in 0..LONG_WAITS {
            match answer {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    answer = self.connection.read_stepwise(step);
                }
                answer => return answer,
            }
        }
        answer
    }
}
