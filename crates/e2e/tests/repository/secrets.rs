//! What holds a secret cannot be written anywhere: neither `Debug` nor `Display`, checked by the
//! compiler.

use std::fmt::{Debug, Display};

use static_assertions::assert_not_impl_any;
use vkey::config::{Plan, UpstreamCredential};
use vkey::engine::Engine;
use vkey::exchange::{Edits, Request};
use vkey::gate::Gate;
use vkey::headers::{Headers, RequestHead};
use vkey::key::keyring::{Keyring, Ring, Secret};
use vkey::key::mac::{RootKey, SigningKey, Tag};
use vkey::key::token::{Unverified, Verified};

assert_not_impl_any!(Secret: Debug, Display);
assert_not_impl_any!(Ring: Debug, Display);
assert_not_impl_any!(Keyring: Debug, Display);
assert_not_impl_any!(RootKey: Debug, Display);
assert_not_impl_any!(SigningKey: Debug, Display);
assert_not_impl_any!(Tag: Debug, Display);
assert_not_impl_any!(Unverified<'_>: Debug, Display);
assert_not_impl_any!(Verified: Debug, Display);
assert_not_impl_any!(UpstreamCredential: Debug, Display);
assert_not_impl_any!(Plan: Debug, Display);
assert_not_impl_any!(Engine: Debug, Display);
assert_not_impl_any!(Gate: Debug, Display);
assert_not_impl_any!(Headers: Debug, Display);
assert_not_impl_any!(RequestHead<'_>: Debug, Display);
assert_not_impl_any!(Request<'_>: Debug, Display);
assert_not_impl_any!(Edits<'_>: Debug, Display);
