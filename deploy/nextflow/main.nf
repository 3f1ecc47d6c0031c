#!/usr/bin/env nextflow
// Every image or plate of a list: objects outlined, then measured. One task per image; include SKETCHSCALE elsewhere.
//   nextflow run deploy/nextflow/main.nf --images images.txt --results results -resume
// images.txt holds one address per line. Images are read and written where they are, in a folder or a bucket, and never
// staged (with -with-docker, mount their folder by docker.runOptions); `results` gets what the commands report. A task
// that failed or was preempted goes on with what is finished.
nextflow.enable.dsl = 2

params.images = 'images.txt'
params.results = 'results'
params.model = 'nuclei-fluo'
params.device = 'cpu'
params.container = 'registry.example.org/sketchscale:0.1.0'

process SKETCHSCALE {
    tag "${image}"
    container params.container
    cpus 4
    memory '16 GB'
    errorStrategy { task.attempt <= 3 ? 'retry' : 'finish' }
    maxRetries 3
    publishDir params.results, mode: 'copy'

    input:
    val image

    output:
    tuple val(image), path('*.segment.json'), path('*.measure.json')

    script:
    def name = image.replaceAll('[^A-Za-z0-9.]+', '_')
    """
    sketchscale segment '${image}' --model '${params.model}' --device ${params.device} --workers ${task.cpus} \\
        --resume --json > '${name}.segment.json'
    sketchscale measure '${image}' --workers ${task.cpus} --resume --json > '${name}.measure.json'
    """
}

workflow {
    SKETCHSCALE(Channel.fromPath(params.images).splitText().map { it.trim() }.filter { it })
}
