//! What the parts of a key are called where a person writes them.

/// The names in sentences about an input.
#[derive(Clone, Copy, Debug)]
pub struct Names {
    /// What the key is limited to from the start.
    pub only: &'static str,
    /// A caveat.
    pub caveat: &'static str,
    /// The notes for people.
    pub meta: &'static str,
    /// How long the key is valid.
    pub lifetime: &'static str,
    /// When it becomes valid.
    pub not_before: &'static str,
    /// What a member is.
    pub kind: &'static str,
}

/// The options of the command.
pub const OPTIONS: Names = Names {
    only: "--only",
    caveat: "--caveat",
    meta: "--meta",
    lifetime: "--lifetime",
    not_before: "--not-before",
    kind: "option",
};

impl Names {
    /// The caveat at an index.
    pub fn nth_caveat(&self, index: usize) -> String {
        format!("{} {}", self.caveat, index + 1)
    }
}
