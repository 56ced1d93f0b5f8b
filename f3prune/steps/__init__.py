"""The Python API: one function per step, each reading from and writing to a ``RunDirectory``.

    from f3prune.core.run_directory import RunDirectory
    from f3prune.steps import calibrate, prune
    run = RunDirectory.create("runs/demo")
    calibrate.calibrate(run, calibrate.CalibrateOptions("zoo:digits"))
    prune.prune(run, calibration.PruneConfig(alpha=0.4))

Every module here imports torch.
"""
