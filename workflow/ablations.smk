# What each part of the model and the objective is worth: one short training an arm, then the page.
#
#   snakemake -s workflow/ablations.smk --cores 2 --keep-going     (or: make ablations)
#   snakemake -s workflow/ablations.smk --cores 2 --config arms=FILE
#
# It may be stopped at any moment: arms that are done are kept, one that was killed goes on.
from snakemake.utils import min_version

from jaisp.ablations.dag import prepare
from jaisp.dag import end_with, user_error

min_version("9.0")

plan = prepare(
    config.get("arms", "config/ablations.yaml"),
    jobs_run_here=workflow.is_main_process and not workflow.dryrun,
)


rule all:
    input:
        plan.receipts,
        plan.page,
        plan.record,


rule base:
    input:
        lambda wildcards: plan.base_files(wildcards.base),
    output:
        plan.receipt("base/{base}"),
    log:
        f"{plan.results}/logs/base.{{base}}.log",
    priority: lambda wildcards: plan.base_priority(wildcards.base)
    conda:
        "../envs/data.yaml"
    threads: 16
    params:
        snakefile=f"{workflow.basedir}/../Snakefile",
        config=lambda wildcards: plan.base_config(wildcards.base),
        results=lambda wildcards: plan.base_results(wildcards.base),
        hash=lambda wildcards: plan.base_hash(wildcards.base),
    shell:
        "snakemake --snakefile {params.snakefile:q} --cores {threads} "
        "--configfile {params.config:q} -- inject > {log:q} 2>&1 "
        "&& cp {params.results:q}/receipts/inject/all.json {output:q}"


rule arm:
    input:
        lambda wildcards: plan.base_receipt(wildcards.arm),
    output:
        plan.receipt("arm/{arm}-{seed}"),
    log:
        f"{plan.results}/logs/{{arm}}-{{seed}}.log",
    benchmark:
        f"{plan.results}/benchmarks/{{arm}}-{{seed}}.tsv"
    wildcard_constraints:
        seed="[0-9]+",
    priority: lambda wildcards: plan.priority(wildcards.arm, wildcards.seed)
    conda:
        "../envs/train.yaml"
    params:
        arms=plan.arms_path,
        hash=lambda wildcards: plan.arm_hash(wildcards.arm, wildcards.seed),
    shell:
        "jaisp ablate --arms {params.arms:q} --arm {wildcards.arm:q} --seed {wildcards.seed} "
        "--threads {threads} --log {log:q}"


rule page:
    input:
        plan.receipts,
    output:
        update(plan.page),
        update(plan.record),
    log:
        f"{plan.results}/logs/page.log",
    conda:
        "../envs/train.yaml"
    params:
        arms=plan.arms_path,
        hash=plan.page_hash,
    shell:
        "jaisp ablate --arms {params.arms:q} --table --log {log:q}"


onerror:
    message = user_error(log)
    if message:
        end_with(message)
