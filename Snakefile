# JAISP: survey tiles in, trained encoders, embedding maps and honest figures out.
#
#   snakemake --cores all                                       the simulated demo
#   snakemake --cores all --configfile config/X.yaml --config data=DIR [target]
#
# Targets: simulate plan fetch warp publish inject train embed evaluate report
from snakemake.utils import min_version

from jaisp.dag import end_with, prepare, user_error

min_version("9.0")

run = prepare(
    workflow.overwrite_configfiles or [f"{workflow.basedir}/config/demo.yaml"],
    workflow.config_settings.config,
    jobs_run_here=workflow.is_main_process and not workflow.dryrun,
)


rule all:
    input:
        f"{run.results}/report.html",


include: "workflow/rules/data.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/results.smk"


onerror:
    message = user_error(log)
    if message:
        end_with(message)
