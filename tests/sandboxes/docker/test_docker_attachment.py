"""The engine's frames, cut anywhere."""

import asyncio
import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from palaestra.sandboxes.docker.attachment import Output

messages = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=40)), max_size=12)


@settings(deadline=None)
@given(messages, st.lists(st.integers(1, 30), max_size=40))
def test_stdout_is_whole_however_it_is_cut(sent, cuts):
    frames = b"".join(struct.pack(">BxxxL", stream, len(data)) + data for stream, data in sent)

    async def through():
        output, at = Output(), 0
        for cut in [*cuts, len(frames)]:
            output.feed_data(frames[at : at + cut])
            at += cut
        output.feed_eof()
        return await output.read(), output.complaint

    stdout, stderr = asyncio.run(through())
    assert stdout == b"".join(data for stream, data in sent if stream == 1)
    assert stderr == b"".join(data for stream, data in sent if stream == 2)


def test_of_stderr_only_the_end_is_kept():
    async def through():
        output = Output()
        for _ in range(100):
            output.feed_data(struct.pack(">BxxxL", 2, 1000) + b"x" * 1000)
        output.feed_data(struct.pack(">BxxxL", 2, 4) + b"\nend")
        return output.complaint

    complaint = asyncio.run(through())
    assert len(complaint) == 4096
    assert complaint.endswith(b"\nend")
