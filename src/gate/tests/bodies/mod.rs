//! Requests whose bodies decide.

mod calls;
mod charged;
mod edits;
mod held;
mod lists;
mod messages;
mod orders;
mod unread;
mod which;
mod worker;
