from rotnet_keras.runs.task_labels import MAX_CONFUSION_CLASSES, confusion_fields, per_class_scores


def test_events_with_many_classes_have_recalls_only():
    few = confusion_fields([[3, 1], [0, 0]])
    assert few == {"per_class": [0.75, 0.0], "confusion": [[3, 1], [0, 0]]}
    assert per_class_scores(few) == per_class_scores({"confusion": few["confusion"]}) == [0.75, 0.0]
    count = MAX_CONFUSION_CLASSES + 1
    many = confusion_fields([[int(i == j) for j in range(count)] for i in range(count)])
    assert many["confusion"] == [] and per_class_scores(many) == [1.0] * count
