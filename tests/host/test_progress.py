"""What a long node shows while it works."""

import pytest


def test_every_report_of_work_is_a_check_for_interruption(host):
    """Stages without evaluations, such as graphs of many steps, take seconds too."""
    import comfy.model_management as management

    progress = host.module("nodes.host.progress").NodeProgress("title", None, 10)
    for report in (lambda: progress("graphs", 1, 450, ""), lambda: progress.tick(3)):
        report()
        management.interrupt_current_processing(True)
        with pytest.raises(management.InterruptProcessingException):
            report()
        report()  # once only
