import torch
from support.updates import episodes

from palaestra.integrations.layout import Layout
from palaestra.training.rows import build_rows


def test_columns_go_there_and_back() -> None:
    played = episodes()
    rows = build_rows(played)
    layout = Layout.of(rows.batch, [each.id for each in played], [each.id for each in rows.trajectories])
    width = int(rows.batch.length.max())
    there = layout.completions(rows.batch.rollout_logprob, width)
    assert torch.equal(layout.rows(there), rows.batch.rollout_logprob)


def test_prompt_and_completion_are_the_row_in_two() -> None:
    played = episodes()
    rows = build_rows(played)
    layout = Layout.of(rows.batch, [each.id for each in played], [each.id for each in rows.trajectories])
    filled = layout.rollout(filler=9)
    for row, place in enumerate(layout.row.argsort().tolist()):
        ids = rows.batch.ids[row, : rows.batch.length[row]].tolist()
        assert filled["prompt_ids"][place] + filled["completion_ids"][place] == ids
        assert filled["env_mask"][place][0] == 1
        assert sum(filled["env_mask"][place]) == int(rows.batch.mask[row].sum())


def test_an_episode_that_teaches_nothing_is_a_filler_without_a_part_in_the_loss() -> None:
    played = episodes()
    rows = build_rows(played)
    ids = [each.id for each in rows.trajectories]
    layout = Layout.of(rows.batch, ["failed", *ids], ids)
    filled = layout.rollout(filler=9)
    assert filled["completion_ids"][0] == [9]
    assert filled["env_mask"][0] == [0]
    assert not layout.completions(rows.batch.rollout_logprob, int(rows.batch.length.max()))[0].any()
