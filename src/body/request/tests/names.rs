//! Models and MCP servers.

use super::*;

#[test]
fn every_place_that_names_a_model_is_read() {
    for (path, body, expected) in [
        (
            CHAT,
            r#"{"model":"a","models":["b","a","c"],"fallbacks":[{"model":"d"},"e"]}"#,
            "a b c d e",
        ),
        (CHAT, r#"{"model":"a","moderation":{"model":"b"}}"#, "a b"),
        (CHAT, r#"{"model":"a","draft_model":"b"}"#, "a b"),
        (CHAT, r#"{"fallbacks":["b","c"],"model":"a"}"#, "a b c"),
        (CHAT, r#"{"fallbacks":["b","a","c"],"model":"a"}"#, "a b c"),
        (
            "/v1/messages/batches",
            r#"{"requests":[{"params":{"fallbacks":["b"],"model":"a"}},{"params":{"model":"c"}}]}"#,
            "a b c",
        ),
        (CHAT, r#"{"model":"a","tools":[{"type":"function","function":{"model":"b"}}]}"#, "a"),
        (CHAT, r#"{"messages":[{"model":"b","fallbacks":["c"]}],"model":"a"}"#, "a"),
        (RESPONSES, r#"{"model":"a","tools":[{"svg":{"model":"c"},"model":"b"}]}"#, "a c b"),
        (MESSAGES, r#"{"model":"a","tools":[{"type":"advisor_20260301","model":"b"}]}"#, "a b"),
        (MESSAGES, r#"{"model":"a","fallbacks":[{"model":"b","max_tokens":1}]}"#, "a b"),
        ("/v1/embeddings", r#"{"model":"a","fallbacks":["b"]}"#, "a b"),
        ("/openai/deployments/d/chat/completions", r#"{"model":"a"}"#, "d a"),
        ("/openai/deployments/d/chat/completions", r#"{"model":"d"}"#, "d"),
        ("/openai/deployments/d/chat/completions?model=q", "{}", "d q"),
        ("/v1/chat/completions?model=q&model=a", r#"{"model":"a"}"#, "a q"),
        (GEMINI, r#"{"model":"models/g"}"#, "g"),
        (GEMINI, r#"{"model":"models/h"}"#, "g h"),
        (
            "/v1beta/models/g:batchEmbedContents",
            r#"{"requests":[{"model":"models/h"},{"model":"g"}]}"#,
            "g h",
        ),
        (
            "/v1beta/models/g:countTokens",
            r#"{"generateContentRequest":{"model":"models/h"}}"#,
            "g h",
        ),
        (
            "/v1beta/models/g:countTokens",
            r#"{"generate_content_request":{"model":"models/h"}}"#,
            "g h",
        ),
        (
            GEMINI,
            r#"{"generation_config":{"routing_config":{"manual_mode":{"model_name":"h"}}}}"#,
            "g h",
        ),
        (
            "/model/b/invoke",
            r#"{"max_tokens":1,"tools":[{"type":"advisor_1","model":"c"}]}"#,
            "b c",
        ),
        ("/v1/chat/completions", r#"{"model":"models/a"}"#, "models/a"),
    ] {
        assert_eq!(models(path, body), expected, "{path} {body}");
    }
}

#[test]
fn what_leaves_the_choice_to_the_server_is_open_ended() {
    for (path, body, expected) in [
        (CHAT, "{}", "…"),
        (CHAT, r#"{"model":null}"#, "…"),
        (CHAT, r#"{"models":["a"]}"#, "a …"),
        ("/v1/chat/completions?model=q", "{}", "q …"),
        (CHAT, r#"{"model":"a","fallbacks":"default"}"#, "a …"),
        (CHAT, r#"{"model":"a","fallbacks":[{"a":["b"]}]}"#, "a …"),
        (CHAT, r#"{"model":"a","fallbacks":[{"model":"b"},{}]}"#, "a b …"),
        (CHAT, r#"{"model":"a","context_window_fallbacks":[{"a":["b"]}]}"#, "a …"),
        (CHAT, r#"{"model":"a","content_policy_fallbacks":[{"a":["b"]}]}"#, "a …"),
        (CHAT, r#"{"model":"a","moderation":{}}"#, "a …"),
        (CHAT, r#"{"model":"a","moderation":"auto"}"#, "a …"),
        (CHAT, r#"{"model":"a","moderation":false}"#, "a"),
        (CHAT, r#"{"model":"a","preset":"p","route":"fallback"}"#, "a …"),
        (CHAT, r#"{"model":"a","plugins":[{"id":"fusion"}]}"#, "a …"),
        (RESPONSES, r#"{"model":"a","plugins":[{"id":"fusion"}]}"#, "a …"),
        (MESSAGES, r#"{"model":"a","plugins":[{"id":"fusion"}]}"#, "a …"),
        (MESSAGES, r#"{"model":"a","preset":"p","route":"fallback"}"#, "a …"),
        (CHAT, r#"{"model":"a","providerOptions":{"gateway":{"models":["b"]}}}"#, "a …"),
        (CHAT, r#"{"model":"a","tools":[{"type":"openrouter:subagent"}]}"#, "a …"),
        (CHAT, r#"{"model":"a","tools":[{"type":"openrouter:image_generation"}]}"#, "a …"),
        (CHAT, r#"{"model":"a","tools":[{"type":"openrouter:web_search"}]}"#, "a"),
        (RESPONSES, r#"{"model":"a","prompt":{"id":"p"}}"#, "a …"),
        (RESPONSES, r#"{"model":"a","tools":[{"type":"image_generation"}]}"#, "a …"),
        (
            RESPONSES,
            r#"{"model":"a","tools":[{"model":"b"},{"type":"image_generation"}]}"#,
            "a b …",
        ),
        (
            RESPONSES,
            r#"{"model":"a","tools":[{"type":"image_generation"},{"model":"b"}]}"#,
            "a b …",
        ),
        (
            RESPONSES,
            r#"{"model":"a","tools":[{"svg":{},"model":"b","type":"image_generation"}]}"#,
            "a b …",
        ),
        (RESPONSES, r#"{"model":"a","tools":[{"type":"web_search"}]}"#, "a"),
        (MESSAGES, r#"{"model":"a","tools":[{"type":"advisor_20260301"}]}"#, "a …"),
        ("/v1/messages/batches", r#"{"requests":[{"params":{"model":"a"}},{"params":{}}]}"#, "a …"),
        ("/v1/messages/batches", r#"{"requests":[{"params":{}},{"params":{"model":"a"}}]}"#, "a …"),
        ("/v1/messages/batches", r#"{"requests":[{"params":{"model":"a"}}]}"#, "a"),
        ("/v1/messages/batches", "{}", ""),
        ("/v1/agents/completions", r#"{"model":"a"}"#, "a …"),
        ("/v1/batches", r#"{"model":"a"}"#, "a …"),
        ("/api/chat", "{}", "…"),
        ("/v2/rerank", "{}", "…"),
        (GEMINI, "{}", "g"),
        (GEMINI, r#"{"generationConfig":{"routingConfig":{"manualMode":{}}}}"#, "g …"),
        (GEMINI, r#"{"generationConfig":{"routing_config":{"auto_mode":{}}}}"#, "g …"),
        (GEMINI, r#"{"generationConfig":{"modelSelectionConfig":{}}}"#, "g …"),
        (GEMINI, r#"{"generationConfig":{"model_config":{"a":1}}}"#, "g …"),
        ("/v1/threads/t/messages", r#"{"model":"a"}"#, "…"),
        ("/openai/deployments/d/completions", "{}", "d"),
    ] {
        assert_eq!(models(path, body), expected, "{path} {body}");
    }
}

/// `gpt-4o*` matches `gpt-4o/../o3`, and a server may resolve it.
#[test]
fn a_name_that_may_be_another_is_open_ended_wherever_it_is() {
    for name in
        ["a,b", "a/../b", "a/./b", "..", "a?b", "a#b", "a%2fb", "a\\\\b", "a\\n", "a\\u007f", "a;b"]
    {
        for body in [
            format!(r#"{{"model":"{name}"}}"#),
            format!(r#"{{"model":"a","fallbacks":["{name}"]}}"#),
            format!(r#"{{"model":"a","tools":[{{"model":"{name}"}}]}}"#),
        ] {
            let facts = facts(CHAT, &body);
            assert!(facts.open_ended, "{body}");
        }
    }
    for name in ["a/b", "a..b", "a/.b", "a/...b", "a:free", "arn:aws:bedrock:x:1:y/z", "a@1 +é"] {
        let body = format!(r#"{{"model":"{name}"}}"#);
        assert_eq!(models(CHAT, &body), name);
    }
    for path in [
        "/v1/chat/completions?model=a,b",
        "/v1/chat/completions?model=a/../b",
        "/openai/deployments/a,b/chat/completions",
        "/openai/deployments/a%252Fb/chat/completions",
        "/model/a%2F..%2Fb/converse",
    ] {
        let facts = facts(path, r#"{"model":"a"}"#);
        assert!(facts.open_ended, "{path}");
    }
    assert_eq!(models(GEMINI, r#"{"model":"models/.."}"#), "g .. …");
}

#[test]
fn mcp_servers_that_the_provider_calls_are_named() {
    let servers = |path: &str, body: &str| facts(path, body).hosted_mcp.join(" ");
    for (path, body, expected) in [
        (RESPONSES, r#"{"tools":[{"type":"mcp","server_url":"https://a"}]}"#, "https://a"),
        (RESPONSES, r#"{"tools":[{"server_url":"https://a/b?c=d/e#f"}]}"#, "https://a/b?c=d/e#f"),
        (
            RESPONSES,
            r#"{"tools":[{"server_url":"https://a"},{"server_url":"https://b"}]}"#,
            "https://a https://b",
        ),
        (RESPONSES, r#"{"tools":[{"type":"mcp","connector_id":"c"},{"tunnel_id":"t"}]}"#, "c t"),
        (CHAT, r#"{"tools":[{"type":"mcp","server_url":"https://a"}]}"#, "https://a"),
        (CHAT, r#"{"mcp_servers":[{"url":"https://a"}]}"#, "https://a"),
        (MESSAGES, r#"{"mcp_servers":[{"type":"url","url":"https://a"}]}"#, "https://a"),
        ("/model/b/invoke", r#"{"mcp_servers":[{"url":"https://a"}]}"#, "https://a"),
        (
            "/v1/messages/batches",
            r#"{"requests":[{"params":{"mcp_servers":[{"url":"https://a"}]}}]}"#,
            "https://a",
        ),
        (
            GEMINI,
            r#"{"tools":[{"mcpServers":[{"streamableHttpTransport":{"url":"https://a"}}]}]}"#,
            "https://a",
        ),
        (
            GEMINI,
            r#"{"tools":[{"mcp_servers":[{"streamable_http_transport":{"url":"https://a"}}]}]}"#,
            "https://a",
        ),
        (RESPONSES, r#"{"tools":[{"type":"function","name":"mcp"}],"mcp_servers":[]}"#, ""),
    ] {
        assert_eq!(servers(path, body), expected, "{path} {body}");
    }
    // One that is not named counts too.
    for (path, body) in [
        (RESPONSES, r#"{"tools":[{"type":"mcp"}]}"#),
        (RESPONSES, r#"{"tools":[{"server_url":"https://a"},{"type":"mcp","server_label":"x"}]}"#),
        (RESPONSES, r#"{"tools":[{"server_url":"https://a/b/../c"}]}"#),
        (RESPONSES, r#"{"tools":[{"server_url":"https://a/b/%2E./c"}]}"#),
        (RESPONSES, r#"{"tools":[{"server_url":"https://a/b\\..\\c"}]}"#),
        (MESSAGES, r#"{"mcp_servers":[{"url":"https://a\tb"}]}"#),
        (MESSAGES, r#"{"mcp_servers":[{"url":null}]}"#),
        (GEMINI, r#"{"tools":[{"mcpServers":[{"streamableHttpTransport":{}}]}]}"#),
    ] {
        let servers = facts(path, body).hosted_mcp;
        assert!(servers.iter().any(|server| server.is_empty()), "{path} {body}");
    }
}

/// OpenAI's `additional_tools` and `tool_search_output` bring tools in the input.
#[test]
fn tools_in_the_input_in_messages_and_in_other_tools_count_as_tools() {
    let read = |input: &str| {
        let facts = facts(RESPONSES, &format!(r#"{{"model":"a","input":{input}}}"#));
        let mut names = facts.models.into_vec();
        names.extend(facts.open_ended.then(|| "…".into()));
        names.extend(facts.hosted_mcp.iter().map(|server| format!("mcp:{server}").into()));
        names.join(" ")
    };
    for (input, expected) in [
        (r#""{\"tools\":[]}""#, "a"),
        (r#"[{"role":"user","content":[{"tools":[{"model":"b"}]}]}]"#, "a"),
        (
            r#"[{"type":"additional_tools","tools":[{"type":"image_generation","model":"b"}]}]"#,
            "a b",
        ),
        (r#"[{"type":"additional_tools","tools":[{"type":"image_generation"}]}]"#, "a …"),
        (
            r#"[{"content":"x"},{"tools":[{"type":"mcp","server_url":"https://m"}],"type":"tool_search_output"}]"#,
            "a mcp:https://m",
        ),
        (r#"[{"tools":[{"type":"mcp"}]}]"#, "a mcp:"),
        (r#"{"tools":[{"model":"b"}]}"#, "a b"),
        (r#"[[{"tools":[{"model":"b"}]}]]"#, "a b"),
        (
            r#"[{"type":"mcp_list_tools","tools":[{"name":"t","input_schema":{"type":"object"}}]}]"#,
            "a",
        ),
        (r#"[{"tools":[{"type":"namespace","tools":[{"type":"function"}]}]}]"#, "a"),
        (
            r#"[{"tools":[{"type":"namespace","tools":[{"type":"mcp","server_url":"u"}]}]}]"#,
            "a mcp: mcp:u",
        ),
    ] {
        let mut expected: Vec<&str> = expected.split(' ').collect();
        let read = read(input);
        let mut read: Vec<&str> = read.split(' ').collect();
        expected.sort_unstable();
        read.sort_unstable();
        assert_eq!(read, expected, "{input}");
    }
    // Anthropic's `tool_addition` brings one in a message.
    let advisor = r#"{"type":"advisor_20260301","model":"b"}"#;
    let addition = |tool: &str| {
        let block = format!(r#"{{"type":"tool_addition","tool":{tool}}}"#);
        format!(
            r#"{{"model":"a","max_tokens":1,"messages":[{{"content":[{block}],"role":"user"}}]}}"#
        )
    };
    let defined = addition(&format!(r#"{{"type":"tool_definition","definition":{advisor}}}"#));
    assert_eq!(models(MESSAGES, &defined), "a b");
    assert_eq!(models("/model/m/invoke", &defined), "m a b");
    let batch = format!(r#"{{"requests":[{{"params":{defined}}}]}}"#);
    assert_eq!(models("/v1/messages/batches", &batch), "a b");
    assert_eq!(models(MESSAGES, &defined.replace(r#","model":"b""#, "")), "a …");
    assert_eq!(models(MESSAGES, &addition(r#"{"type":"tool_reference","name":"t"}"#)), "a");
    let plain = r#"{"model":"a","messages":[{"role":"user","content":"x"},{"content":[{"text":"y","model":"b"}]}]}"#;
    assert_eq!(models(MESSAGES, plain), "a");
    // The tool around other tools keeps its own kind.
    let body =
        r#"{"model":"a","tools":[{"type":"image_generation","tools":[{"type":"function"}]}]}"#;
    assert_eq!(models(RESPONSES, body), "a …");
    let body = r#"{"model":"a","tools":[{"tools":[{"type":"image_generation"}],"model":"b"}]}"#;
    assert_eq!(models(RESPONSES, body), "a b …");
}

/// Models that the types of Azure, Groq, OpenAI and Vertex allow besides the one that answers.
#[test]
fn models_that_search_rank_and_draw_are_read() {
    for (path, body, expected) in [
        ("/v1/images/generations", r#"{"model":"a","svg":{"model":"b"}}"#, "a b"),
        ("/v1/images/generations", r#"{"model":"a","svg":{}}"#, "a …"),
        (
            CHAT,
            r#"{"model":"a","data_sources":[{"type":"azure_search","parameters":{"embedding_dependency":{"type":"deployment_name","deployment_name":"b"}}}]}"#,
            "a b",
        ),
        (
            CHAT,
            r#"{"model":"a","data_sources":[{"parameters":{"embedding_dependency":{"type":"endpoint","endpoint":"https://e"}}}]}"#,
            "a …",
        ),
        (CHAT, r#"{"model":"a","data_sources":[{"parameters":{"index_name":"i"}}]}"#, "a"),
        (CHAT, r#"{"model":"a","compound_custom":{"models":{"answering_model":"b"}}}"#, "a …"),
        (
            GEMINI,
            r#"{"tools":[{"retrieval":{"vertexRagStore":{"ragRetrievalConfig":{"ranking":{"llmRanker":{"modelName":"h"}}}}}}]}"#,
            "g h",
        ),
        (
            GEMINI,
            r#"{"tools":[{"retrieval":{"vertex_rag_store":{"rag_retrieval_config":{"ranking":{"rank_service":{"model_name":"h"}}}}}}]}"#,
            "g h",
        ),
        (
            GEMINI,
            r#"{"tools":[{"retrieval":{"vertexRagStore":{"ragRetrievalConfig":{"ranking":{"llmRanker":{}}}}}}]}"#,
            "g …",
        ),
        (
            GEMINI,
            r#"{"tools":[{"retrieval":{"vertexRagStore":{"ragRetrievalConfig":{"topK":3}}}}]}"#,
            "g",
        ),
    ] {
        assert_eq!(models(path, body), expected, "{path} {body}");
    }
}

#[test]
fn too_many_names_are_refused() {
    let named = |count: usize, name: &dyn Fn(usize) -> String| {
        let names: Vec<String> = (0..count).map(|n| format!("\"{}\"", name(n))).collect();
        read(CHAT, &format!(r#"{{"model":"m0","models":[{}]}}"#, names.join(",")))
    };
    let different = |n: usize| format!("m{n}");
    assert_eq!(named(MAX_MODELS, &different).unwrap().models.len(), MAX_MODELS);
    assert_eq!(named(MAX_MODELS + 1, &different).err(), Some(Unreadable::TooManyModels));
    assert_eq!(named(1000, &|_| "m0".to_owned()).unwrap().models.len(), 1);
    let servers = |count: usize| {
        let servers: Vec<String> = (0..count).map(|n| format!(r#"{{"url":"{n}"}}"#)).collect();
        read(MESSAGES, &format!(r#"{{"mcp_servers":[{}]}}"#, servers.join(",")))
    };
    assert_eq!(servers(MAX_MODELS).unwrap().hosted_mcp.len(), MAX_MODELS);
    assert_eq!(servers(MAX_MODELS + 1).err(), Some(Unreadable::TooManyModels));
}
