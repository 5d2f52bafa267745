"""Agents behind an endpoint that knows chats only: messages out, text or tool calls back."""
