use super::*;
use crate::body::request::MAX_MODELS;

/// The format, the model, and what else the path says.
fn read(target: &str) -> String {
    let Ok(target) = Target::parse("POST", target.as_bytes()) else {
        return "ambiguous".to_owned();
    };
    let mut text = target.format.name().to_owned();
    target.model.iter().for_each(|model| text += &format!(" {model}"));
    let query_models = target.query_models.into_boxed();
    query_models.iter().for_each(|model| text += &format!(" ?{model}"));
    for (flag, name) in [
        (target.streams, " streams"),
        (target.is_open_ended, " open"),
        (target.is_uncounted, " uncounted"),
    ] {
        text += if flag { name } else { "" };
    }
    text
}

#[test]
fn a_format_is_recognised_by_the_end_of_the_path() {
    for (path, expected) in [
        ("/v1/chat/completions", "openai.chat"),
        ("/v1/chat/completions/", "openai.chat"),
        ("/chat/completions", "openai.chat"),
        ("/inference/v1/chat/completions?api-version=1", "openai.chat"),
        ("/v1/projects/p/locations/l/endpoints/openapi/chat/completions", "openai.chat"),
        ("/v1/completions", "openai.completions"),
        ("/v1/fim/completions", "mistral.fim"),
        ("/v1/agents/completions", "mistral.agents open"),
        ("/openai/responses", "openai.responses"),
        ("/v1/responses/compact", "openai.responses"),
        ("/v1/responses/input_tokens", "openai.input_tokens"),
        ("/v1/embeddings", "openai.embeddings"),
        ("/v1/images/edits", "openai.images"),
        ("/v1/audio/speech", "openai.audio"),
        ("/openai/batches", "openai.batches open"),
        ("/v1/messages/batches", "anthropic.batches"),
        ("/anthropic/v1/messages/count_tokens", "anthropic.count_tokens"),
        ("/v2/embed", "cohere.embed"),
        ("/ollama/api/generate", "ollama.generate"),
    ] {
        assert_eq!(read(path), expected, "{path}");
    }
}

/// `/batches` is a format of its own, and `/v1/messages/batches` another one.
#[test]
fn a_path_that_is_another_format_in_another_case_is_ambiguous() {
    for path in ["/v1/Messages/batches", "/v1/Chat/completions", "/v1/MESSAGES/batches"] {
        assert_eq!(read(path), "ambiguous", "{path}");
    }
    assert_ne!(read("/v1/batches"), "ambiguous");
}

#[test]
fn what_is_not_known_is_another_format() {
    for path in [
        "/",
        "/v1",
        "/v1/models",
        "/v1/Chat/Completions",
        "/v1/chat/completions;v=1",
        "/v1/chat/completions%20",
        "/v1/chat%2Fcompletions",
        "/v1/chat/completions/x",
        "/v1/xcompletions",
        "/messages",
        "/v2/messages",
        "/v1/threads/t/messages",
        "/v1/chat",
        "/v1/models/gemini-2.5-pro",
        "/v1beta/agents/a:generateContent",
        "/v1beta/models:generateContent",
        "/models/m/converse",
        "/model/converse",
    ] {
        assert_eq!(read(path), "other open", "{path}");
    }
}

/// A key with quotas of tokens may use none of them, wherever they are.
#[test]
fn paths_of_ai_services_that_are_not_read_are_known() {
    for path in [
        "/v1beta/models/gemini-2.5-pro:predict",
        "/v1beta/models/gemini-2.5-pro:GenerateContent",
        "/x/v1beta1/Models/g%3Apredict",
        "/v1/projects/p/publishers/mistralai/models/m:rawPredict",
        "/v1/projects/p/publishers/anthropic/models/m:generateContent",
        "/v1beta1/projects/p/locations/l/endpoints/7:serverStreamingPredict",
        "/v1beta1/projects/p/locations/l/reasoningEngines/7:streamQuery",
        "/v1beta1/projects/p/locations/l:evaluateInstances",
        "/model/m/invoke-with-bidirectional-stream",
        "/bedrock/Model/m/Converse",
        "/async-invoke",
        "/model-invocation-job",
        "/model/m/async-invoke",
        "/batch",
        "/ollama/api/embed",
    ] {
        assert_eq!(read(path), "other open uncounted", "{path}");
    }
}

#[test]
fn a_path_names_a_model() {
    for (path, expected) in [
        ("/openai/deployments/d-1/chat/completions", "openai.chat d-1"),
        ("/v1/engines/davinci/completions", "openai.completions davinci"),
        ("/openai/Deployments/d-1/chat/completions", "openai.chat d-1"),
        ("/openai/deployments/my%20dep/images/generations", "openai.images my dep"),
        ("/v1beta/models/g-2:generateContent", "gemini.generate g-2"),
        ("/v1beta/models/g-2%3astreamGenerateContent", "gemini.generate g-2 streams"),
        ("/v1beta/models/a:b:countTokens", "gemini.count a:b"),
        ("/v1beta/models/e:batchEmbedContents", "gemini.embed e"),
        ("/v1beta/tunedModels/t:generateContent", "gemini.generate tunedModels/t"),
        ("/v1/projects/p/locations/l/endpoints/7:generateContent", "gemini.generate endpoints/7"),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/c@1:rawPredict",
            "anthropic.messages c@1",
        ),
        (
            "/v1/projects/p/locations/l/publishers/anthropic/models/count-tokens:rawPredict",
            "anthropic.count_tokens",
        ),
        ("/model/a.b-v1%3A0/count-tokens", "bedrock.count a.b-v1:0"),
        ("/model/arn%3Aaws%3Abedrock%3Ax%2Fus.y/invoke", "bedrock.invoke arn:aws:bedrock:x/us.y"),
        ("/model/%C3%A9/converse", "bedrock.converse é"),
        ("/model/a+b%2Bc/converse", "bedrock.converse a+b+c"),
    ] {
        assert_eq!(read(path), expected, "{path}");
    }
}

/// What a prompt or a router runs is known to Bedrock alone.
#[test]
fn an_arn_of_a_prompt_is_open_ended() {
    let prompt = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Aprompt%2FP1";
    let router = "arn%3Aaws%3Abedrock%3Aus-east-1%3A1%3Adefault-prompt-router%2Fa";
    for arn in [prompt, router] {
        let read = read(&format!("/model/{arn}/converse"));
        assert!(read.ends_with(" open"), "{read}");
    }
    assert_eq!(read("/model/prompt-1/converse"), "bedrock.converse prompt-1");
}

/// Servers differ in what they take for the name.
#[test]
fn a_deployment_that_is_not_one_segment_is_ambiguous() {
    for path in [
        "/openai/deployments/chat/completions",
        "/openai/deployments/a/b/chat/completions",
        "/openai/deployments/a/engines/b/chat/completions",
        "/deployments/engines/chat/completions",
        "/deployments/a/v1/chat/completions",
        "/openai/deployments/gpt-4o/extensions/chat/completions",
        "/deployments/a/engines/b/completions",
    ] {
        assert_eq!(read(path), "ambiguous", "{path}");
    }
}

#[test]
fn a_query_names_models() {
    let read = |query: &str| read(&format!("/v1/chat/completions?{query}"));
    assert_eq!(read("model=a&x=b&model=c"), "openai.chat ?a ?c");
    assert_eq!(read("x=1;model=a"), "openai.chat ?a");
    assert_eq!(read("Model=a+b%2Fc%2Bd&model=a+b%2Fc%2Bd"), "openai.chat ?a b/c+d");
    assert_eq!(read("m%6Fdel=a"), "openai.chat ?a");
    assert_eq!(read("xmodel=a&models=b&model=&model&%=1&alt=sse"), "openai.chat");
    assert_eq!(read("model=%zz"), "ambiguous");
    assert_eq!(read("model=%ff"), "ambiguous");
    let many = |count: usize| {
        let models: Vec<String> = (0..count).map(|number| format!("model=m{number}")).collect();
        read(&models.join("&"))
    };
    assert_eq!(many(MAX_MODELS).matches("?m").count(), MAX_MODELS);
    assert_eq!(many(MAX_MODELS + 1), "ambiguous");
}

/// Google's services take a method, a body and a form of the response from the query.
#[test]
fn a_query_that_changes_the_request_or_its_response_is_refused() {
    let parse = |method: &str, target: &str| Target::parse(method, target.as_bytes()).err();
    let gemini = |query: &str| parse("POST", &format!("/v1beta/models/g:generateContent?{query}"));
    for query in [
        "fields=candidates",
        "a=1&%24alt=proto",
        "x=1;callback=f",
        "$req=%7B%7D",
        "$alt=json;enum-encoding=int",
    ] {
        assert_eq!(gemini(query), Some(AmbiguousTarget::Parameter), "{query}");
    }
    for query in ["alt=sse", "$alt=json&prettyPrint=false", "key=k"] {
        assert_eq!(gemini(query), None, "{query}");
    }
    let method = "/v1beta/models/g:generateContent?$httpMethod=POST";
    assert_eq!(parse("GET", method), Some(AmbiguousTarget::Parameter));
    // What a request for a list reads of it does not matter.
    assert_eq!(parse("GET", "/v1beta/models?fields=models.name"), None);
    assert_eq!(parse("POST", "/app?fields=a&callback=f"), None);
}

#[test]
fn names_that_cannot_be_read_are_ambiguous() {
    let long = "m".repeat(MAX_NAME_BYTES);
    assert_eq!(read(&format!("/model/{long}/invoke")), format!("bedrock.invoke {long}"));
    for path in [
        &format!("/model/{long}m/invoke"),
        "/model//invoke",
        "/model/a%/invoke",
        "/model/a%4/invoke",
        "/model/a%+1/invoke",
        "/model/%ff/invoke",
        "/model/a%00b/invoke",
        "/model/a%0Ab/invoke",
        "/v1beta/models/:generateContent",
        "/openai/deployments//chat/completions",
    ] {
        assert_eq!(read(path), "ambiguous", "{path}");
    }
}

/// Nothing but POST makes a model run, as far as is known.
#[test]
fn other_methods_have_another_format() {
    for (method, is_open_ended) in
        [("GET", false), ("HEAD", false), ("OPTIONS", false), ("DELETE", true), ("post", true)]
    {
        let target = Target::parse(method, b"/v1/chat/completions?model=a").unwrap();
        assert_eq!((target.format, target.is_open_ended), (Format::Other, is_open_ended));
        assert!(target.query_models.into_boxed().is_empty());
    }
}
