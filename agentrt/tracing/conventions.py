"""Names of span attributes, events, operations and metrics.

The `gen_ai.*` and `error.type` names follow the OpenTelemetry GenAI semantic conventions 1.42.0-dev (status:
Development). They are kept here because the constants package marks its own as deprecated: they moved to
open-telemetry/semantic-conventions-genai. No convention covers budgets, queues, joins and cost: those are `agentrt.*`.
"""

from __future__ import annotations

from typing import Final

SCHEMA_VERSION: Final = "1.42.0-dev"

ERROR_TYPE: Final = "error.type"

OPERATION_NAME: Final = "gen_ai.operation.name"
PROVIDER_NAME: Final = "gen_ai.provider.name"
CONVERSATION_ID: Final = "gen_ai.conversation.id"
WORKFLOW_NAME: Final = "gen_ai.workflow.name"
AGENT_NAME: Final = "gen_ai.agent.name"
AGENT_DESCRIPTION: Final = "gen_ai.agent.description"
OUTPUT_TYPE: Final = "gen_ai.output.type"
REQUEST_MODEL: Final = "gen_ai.request.model"
REQUEST_MAX_TOKENS: Final = "gen_ai.request.max_tokens"
REQUEST_TEMPERATURE: Final = "gen_ai.request.temperature"
REQUEST_TOP_P: Final = "gen_ai.request.top_p"
REQUEST_SEED: Final = "gen_ai.request.seed"
REQUEST_STOP: Final = "gen_ai.request.stop_sequences"
REQUEST_STREAM: Final = "gen_ai.request.stream"
RESPONSE_ID: Final = "gen_ai.response.id"
RESPONSE_MODEL: Final = "gen_ai.response.model"
RESPONSE_FINISH_REASONS: Final = "gen_ai.response.finish_reasons"
RESPONSE_TIME_TO_FIRST_CHUNK: Final = "gen_ai.response.time_to_first_chunk"
INPUT_TOKENS: Final = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS: Final = "gen_ai.usage.output_tokens"
CACHE_WRITE_TOKENS: Final = "gen_ai.usage.cache_write.input_tokens"
CACHE_CREATION_TOKENS: Final = "gen_ai.usage.cache_creation.input_tokens"  # the older name, which Jaeger reads
CACHE_READ_TOKENS: Final = "gen_ai.usage.cache_read.input_tokens"
REASONING_TOKENS: Final = "gen_ai.usage.reasoning.output_tokens"
TOOL_NAME: Final = "gen_ai.tool.name"
TOOL_TYPE: Final = "gen_ai.tool.type"
TOOL_DESCRIPTION: Final = "gen_ai.tool.description"
TOOL_CALL_ID: Final = "gen_ai.tool.call.id"
DATA_SOURCE: Final = "gen_ai.data_source.id"
DIMENSION_COUNT: Final = "gen_ai.embeddings.dimension.count"
TOP_K: Final = "gen_ai.retrieval.top_k"

INPUT_MESSAGES: Final = "gen_ai.input.messages"
OUTPUT_MESSAGES: Final = "gen_ai.output.messages"
TOOL_ARGUMENTS: Final = "gen_ai.tool.call.arguments"
TOOL_RESULT: Final = "gen_ai.tool.call.result"
QUERY_TEXT: Final = "gen_ai.retrieval.query.text"
DOCUMENTS: Final = "gen_ai.retrieval.documents"

RUN_ID: Final = "agentrt.run.id"
RUN_STATUS: Final = "agentrt.run.status"
RUN_STOP_REASON: Final = "agentrt.run.stop_reason"
RUN_ATTEMPT: Final = "agentrt.run.attempt"
RUN_SEGMENT: Final = "agentrt.run.segment"
RUN_REPLAYED: Final = "agentrt.run.replayed"
STEPS_ABANDONED: Final = "agentrt.steps.abandoned"
SPANS_DROPPED: Final = "agentrt.spans.dropped"
NODE_NAME: Final = "agentrt.node.name"
NODE_PATH: Final = "agentrt.node.path"
NODE_ATTEMPTS: Final = "agentrt.node.attempts"
NODE_OUTCOME: Final = "agentrt.node.outcome"
STEP_PATH: Final = "agentrt.step.path"
STEP_OUTCOME: Final = "agentrt.step.outcome"
ERROR_PATH: Final = "agentrt.error.path"
QUEUE_WAIT: Final = "agentrt.queue.wait_ms"
RETRY_ATTEMPT: Final = "agentrt.retry.attempt"
RETRY_MAX: Final = "agentrt.retry.max"
RETRY_DELAY: Final = "agentrt.retry.delay_ms"
RETRY_REASON: Final = "agentrt.retry.reason"
RETRY_MODEL: Final = "agentrt.retry.model"
RATELIMIT_SECONDS: Final = "agentrt.ratelimit.seconds"
RATELIMIT_WAITED: Final = "agentrt.ratelimit.wait_ms"
CACHE_MODEL: Final = "agentrt.cache.model"
CHAT_CACHED: Final = "agentrt.chat.cached"
EDGE_SOURCE: Final = "agentrt.edge.source"
JOIN_SOURCES: Final = "agentrt.join.sources"
JOIN_EXPECTED: Final = "agentrt.join.expected"
JOIN_ARRIVED: Final = "agentrt.join.arrived"
BRANCHES_DIED: Final = "agentrt.branches.died"
LINK_TYPE: Final = "agentrt.link.type"
QUESTION_KIND: Final = "agentrt.question.kind"
QUESTION_TIMEOUT: Final = "agentrt.question.timeout_ms"
QUESTION_VERDICT: Final = "agentrt.question.verdict"
QUESTION_BY: Final = "agentrt.question.by"
QUESTION_WAIT: Final = "agentrt.question.wait_ms"
QUESTION_PROMPT: Final = "agentrt.question.prompt"
QUESTION_ABOUT: Final = "agentrt.question.about"
QUESTION_VALUE: Final = "agentrt.question.value"
QUESTION_BECAUSE: Final = "agentrt.question.because"
COST: Final = "agentrt.cost.usd"
COST_IN_DOUBT: Final = "agentrt.cost.in_doubt_usd"
USAGE: Final = "agentrt.usage."
BUDGET: Final = "agentrt.budget."
UNTRUSTED: Final = "agentrt.untrusted"
UNTRUSTED_OUTPUT: Final = "agentrt.untrusted.output"
CALL_TOOL: Final = "agentrt.call.tool"
CALL_REASON: Final = "agentrt.call.reason"
TRUNCATED: Final = "agentrt.truncated"

BRANCH_DIED: Final = "agentrt.branch.died"
FIRST_CHUNK: Final = "agentrt.stream.first_chunk"
BUDGET_CLAMPED: Final = "agentrt.budget.clamped"
BUDGET_WAITED: Final = "agentrt.budget.waited"
BUDGET_DENIED: Final = "agentrt.budget.denied"
BUDGET_OVERRUN: Final = "agentrt.budget.overrun"
BUDGET_EXHAUSTED: Final = "agentrt.budget.exhausted"
RATELIMIT_WAIT: Final = "agentrt.ratelimit.wait"
CACHE_HIT: Final = "agentrt.cache.hit"
CALL_REFUSED: Final = "agentrt.call.refused"
QUESTION_ASKED: Final = "agentrt.question.asked"
QUESTION_ANSWERED: Final = "agentrt.question.answered"

BUDGET_EXCEEDED: Final = "budget_exceeded"

INFERENCE_DURATION: Final = "gen_ai.client.inference.duration"
INFERENCE_FIRST_CHUNK: Final = "gen_ai.client.inference.time_to_first_chunk"
INFERENCE_INPUT_TOKENS: Final = "gen_ai.client.inference.usage.input_tokens"
INFERENCE_OUTPUT_TOKENS: Final = "gen_ai.client.inference.usage.output_tokens"
TOOL_DURATION: Final = "gen_ai.execute_tool.duration"
AGENT_DURATION: Final = "gen_ai.invoke_agent.duration"
WORKFLOW_DURATION: Final = "gen_ai.invoke_workflow.duration"
COST_METRIC: Final = "agentrt.client.inference.cost"
CACHE_HITS: Final = "agentrt.client.inference.cache_hits"
RETRIES: Final = "agentrt.step.retries"
QUEUE_DURATION: Final = "agentrt.queue.wait.duration"
RATELIMIT_DURATION: Final = "agentrt.ratelimit.wait.duration"
BUDGET_WAIT_DURATION: Final = "agentrt.budget.wait.duration"
BUDGET_DENIALS: Final = "agentrt.budget.denials"
BUDGET_DIMENSION: Final = "agentrt.budget.dimension"

CLIENT_BUCKETS: Final = tuple(0.01 * 2**i for i in range(14))
"""Seconds, 0.01 to 81.92, for model and tool calls."""
WORKFLOW_BUCKETS: Final = (1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0)
"""Seconds, for agents and workflows."""

PROVIDERS: Final = {
    "azure": "azure.ai.openai",
    "azure_ai": "azure.ai.inference",
    "bedrock": "aws.bedrock",
    "gemini": "gcp.gemini",
    "mistral": "mistral_ai",
    "vertex_ai": "gcp.vertex_ai",
    "watsonx": "ibm.watsonx.ai",
    "xai": "x_ai",
}
"""The conventions' name of a provider where it is not the one in litellm's model names."""
