from rotnet_keras.runs.task_labels import MOST_COUNTED, counted, recalls_of


def test_events_of_many_answers_keep_the_recalls_alone():
    few = counted([[3, 1], [0, 0]])
    assert few == {"per_class": [0.75, 0.0], "confusion": [[3, 1], [0, 0]]}
    assert recalls_of(few) == recalls_of({"confusion": few["confusion"]}) == [0.75, 0.0]
    count = MOST_COUNTED + 1
    many = counted([[int(i == j) for j in range(count)] for i in range(count)])
    assert many["confusion"] == [] and recalls_of(many) == [1.0] * count
