//! `--models` and `--tools`: the restriction that people mean by a list of models and a list of tools.

use vkey::access::restriction::Slashes;
use vkey::issuing::check_restriction;
use vkey::json::{Invalid, Json};

use super::input::InputError;

/// What the key may be used for. Each entry is one more alternative.
#[derive(clap::Args)]
pub(super) struct UseArgs {
    /// Allow these models: a glob, where * is any characters; may be repeated. Alone, it allows no MCP call. With --tools,
    /// a request is allowed if its models are or if its MCP call is. No request is both, so neither needs paths
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    models: Vec<String>,
    /// Allow these MCP tools: a glob, e.g. 'search_*', or a tool in JSON with conditions on its arguments; may be
    /// repeated. Alone, it allows no AI request. Resources and prompts are closed; a restriction in JSON can open them
    #[arg(long, value_name = "GLOB|JSON", value_parser = tool)]
    tools: Vec<String>,
}

impl UseArgs {
    /// The names of the options that are used, for messages about their restriction.
    pub(super) fn options(&self) -> &'static str {
        match (self.models.is_empty(), self.tools.is_empty()) {
            (false, true) => "--models",
            (true, _) => "--tools",
            (false, false) => "--models, --tools",
        }
    }

    /// The restriction; `None` if neither option is used.
    ///
    /// Both together are alternatives, because one request never is both: a restriction of models holds for no MCP
    /// call, and one of MCP calls for nothing else. So the alternatives need no `paths` to keep them apart. The
    /// messages of MCP are decided by `mcp` on every path of the configuration's `mcp`, whatever its `llm` says.
    ///
    /// # Errors
    ///
    /// [`InputError`] names the tool whose JSON is invalid or that no call can match.
    pub(super) fn restriction(&self) -> Result<Option<Json>, InputError> {
        let tools = self.tools.iter().enumerate().map(|(index, text)| {
            read_tool(text).map_err(|invalid| InputError::Option {
                option: "--tools",
                number: Some(index + 1),
                invalid,
            })
        });
        let tools = only_tools(tools.collect::<Result<_, _>>()?);
        let models = self.models.iter().map(|glob| Json::from(glob.as_str())).collect();
        let models = Json::object([("models", Json::Array(models))]);
        Ok(match (self.models.is_empty(), self.tools.is_empty()) {
            (true, true) => None,
            (false, true) => Some(models),
            (true, false) => Some(tools),
            (false, false) => Some(Json::object([("any_of", Json::Array(vec![models, tools]))])),
        })
    }
}

fn only_tools(tools: Vec<Json>) -> Json {
    Json::object([("mcp", Json::object([("tools", Json::Array(tools))]))])
}

/// Reads a tool: a glob, or an object, which no name of a tool begins like.
fn read_tool(text: &str) -> Result<Json, Invalid> {
    if !is_object(text) {
        return Ok(text.into());
    }
    let tool = Json::parse(text.as_bytes())?;
    check_restriction(&only_tools(vec![tool.clone()]), Slashes::Refused)?;
    Ok(tool)
}

fn is_object(text: &str) -> bool {
    text.trim_start().starts_with('{')
}

fn tool(text: &str) -> Result<String, &'static str> {
    if is_object(text) { Ok(text.to_owned()) } else { glob(text) }
}

/// A key with a glob that nothing matches is dead, and no caveat can be removed again. No model and no tool has a comma
/// or white space in its name (MCP 2025-11-25, "Tool Names"), so a text with one is a list. Neither begins as JSON does.
fn glob(text: &str) -> Result<String, &'static str> {
    let separates = |c: char| c == ',' || c.is_whitespace() || c.is_control();
    if text.is_empty() {
        Err("expected a glob over names, e.g. search_* or *")
    } else if text.starts_with(['[', '{', '"']) {
        Err("expected a glob over names, e.g. search_*, not JSON; repeat the option for another")
    } else if text.contains(separates) {
        Err("expected one glob, without commas and white space; repeat the option for another")
    } else {
        Ok(text.to_owned())
    }
}
