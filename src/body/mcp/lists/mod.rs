//! Responses with lists of tools, prompts and resources, without what the caller may not use.
//!
//! A [`Filter`] is fed a response in any pieces. Of a JSON response it says which bytes have to be changed; of
//! server-sent events it passes on each as soon as it has ended. A list is known by its shape: a result with an array
//! `tools`, `prompts`, `resources` or `resourceTemplates`. So it is filtered as well where a stream repeats it later.
//! A response that cannot be read, but may have a list for some reader, is [`Blocked`].

mod blocked;
mod document;
mod edit;
mod events;
mod filter;
mod head;
mod items;
mod reading;
mod spots;
#[cfg(test)]
mod tests;

pub use blocked::{Blocked, Cause};
pub use edit::Edit;
pub use filter::{Filter, Finished, Handling};
pub use head::{Asked, Head};
