"""From trajectories to better weights: credit, losses, algorithms as recipes, the learner, checkpoints, trainers."""
