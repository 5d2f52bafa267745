"""Models behind an HTTP endpoint that speaks as OpenAI's does: vLLM, SGLang, llama.cpp, OpenAI and others."""
