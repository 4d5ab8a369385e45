//! The kinds of objects of a server.

/// What a message names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ObjectKind {
    /// A tool, by its name.
    Tool,
    /// A resource, by its URI, or a template of resources, by the text of its URI template.
    Resource,
    /// A prompt, by its name.
    Prompt,
    /// A task, by its id. No restriction has globs for tasks.
    Task,
}
