"""The shards of a loop under KFP's local runner: one after another, in the thread of the run.

KFP's own way runs two at a time in threads. A step uses all CPUs of the machine, so nothing is won; the two would write
into one log, and a run that is told to stop would wait for all shards, because a signal reaches the main thread alone.
Each shard's artifacts lie in a run's folder of their own, as `natix_lib.run_cache` knows them, and not a folder deeper.
"""

from typing import Any

from kfp.local import status
from kfp.local.orchestrator import enhanced_dag_orchestrator as orchestrator

PREFIX = "natix-"  # of the folder of a run, by the pipeline's name


def run_one_by_one(
    self: Any, tasks: Any, pipeline_resource_name: str, fail_stack: Any, parallelism_limit: int = 0, **others: Any
) -> tuple[dict[str, Any], status.Status]:
    """Run the tasks of a loop, with the arguments and results of `ParallelExecutor.execute_parallel_tasks`."""
    every: dict[str, Any] = {}
    for name, spec in tasks:
        iteration = name.rpartition("-")[2]
        outputs, ended = orchestrator.execute_task(
            task_name=f"shard-{iteration}",  # not KFP's name, which would make folders below the run's
            task_spec=spec,
            pipeline_resource_name=f"{PREFIX}shard-{iteration}-{pipeline_resource_name.removeprefix(PREFIX)}",
            fail_stack=fail_stack,
            **others,
        )
        if ended != status.Status.SUCCESS:
            fail_stack.append(name)
            return {}, ended
        every[name] = outputs
    return every, status.Status.SUCCESS


ONE_BY_ONE = (orchestrator.ParallelExecutor, "execute_parallel_tasks", run_one_by_one)
"""For `natix_pipelines.local.in_place_of_kfps`."""
